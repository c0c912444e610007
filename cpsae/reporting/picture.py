"""Explained variance and CE-loss score against L0, as SVG or PNG."""

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cpsae.reporting.runs import Group
from cpsae.reporting.series import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "png")
PANELS = {"explained_variance": "explained variance", "ce_loss_score": "CE-loss score"}
"""What is drawn against L0, and its name on the axis."""
# Okabe and Ito's colours, which people of every kind of sight tell apart, without their yellow,
# which is lost on white; a grey and a wine red make them as many as there are kinds.
_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#888888", "#882255"),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_STYLE = {
    "svg.hashsalt": "cpsae",  # else ids, and so bytes, are new each time
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.which": "both",
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "figure.facecolor": "white",
}
_PIXELS_AN_INCH = 100
_WIDTH, _HEIGHT, _LEGEND_LINE = 8.0, 3.8, 0.19
"""Inches."""
_LEGEND_LETTERS = 126
"""As many stand beside each other in the legend, less ten for each column's sign."""
_NO_STAMP = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}


@contextmanager
def own_style() -> Iterator[None]:
    """How pictures look, whatever a user's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def as_bytes(figure: "Figure", file_format: str) -> bytes:
    """A file of one of FORMATS: the same bytes for the same figure and matplotlib."""
    content = io.BytesIO()
    figure.savefig(content, format=file_format, metadata=_NO_STAMP[file_format])
    return content.getvalue()


def draw(series: Sequence[Series], file_format: str) -> bytes:
    """A picture 800 pixels wide, a line a series."""
    from matplotlib.figure import Figure

    with own_style():
        longest = max((len(line.label) for line in series), default=0)
        columns = next((c for c in (3, 2) if longest <= _LEGEND_LETTERS // c - 10), 1)
        labels = [textwrap.fill(line.label, _LEGEND_LETTERS - 10) for line in series]
        lines = sum(label.count("\n") + 1 for label in labels)
        height = _HEIGHT + _LEGEND_LINE * -(-lines // columns)
        figure = Figure(figsize=(_WIDTH, height), dpi=_PIXELS_AN_INCH, layout="constrained")
        panels = figure.subplots(1, len(PANELS))
        for axes, name in zip(panels, PANELS, strict=True):
            _panel(axes, series, name)
        handles = [_handle(number, label) for number, label in enumerate(labels)]
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        figure.suptitle(_meaning_of_bars(series), fontsize=8, color="#555555")
        return as_bytes(figure, file_format)


def drawable(group: Group, name: str) -> bool:
    """Whether a group has a point in a panel: a logarithm knows no L0 of 0."""
    l0 = group.spread("l0")
    return l0 is not None and l0.low > 0 and group.spread(name) is not None


def _panel(axes: "Axes", series: Sequence[Series], name: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    lines = [[group for group in line.groups if drawable(group, name)] for line in series]
    l0 = _means([group for line in lines for group in line], "l0")
    if not l0:
        axes.text(0.5, 0.5, "no run has this figure yet", transform=axes.transAxes, ha="center")
    low, high = min(l0, default=10.0), max(l0, default=100.0)
    # a few points close together would leave the axis without a labelled tick
    room = max(1.2, (4 / (high / low)) ** 0.5)
    axes.set(xscale="log", xlabel="L0 (active latents a row)", ylabel=PANELS[name])
    axes.set_xlim(low / room, high * room)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    for number, points in enumerate(lines):
        if points:
            _line(axes, number, name, points)


def _line(axes: "Axes", number: int, name: str, points: Sequence[Group]) -> None:
    x, y = _means(points, "l0"), _means(points, name)
    right, up = _bars(points, "l0", x), _bars(points, name, y)
    options = {**look(number), "elinewidth": 0.8, "capsize": 2}
    drawn: Any = axes.errorbar(x, y, xerr=right, yerr=up, **options)
    drawn.lines[0].set_gid(f"{name}-{number}")


def _means(points: Sequence[Group], name: str) -> list[float]:
    return [spread.mean for group in points if (spread := group.spread(name))]


def _bars(points: Sequence[Group], name: str, means: Sequence[float]) -> list[list[float]] | None:
    """What matplotlib wants: how far down and up each bar goes; None where there is no bar."""
    bars = [group.bar(name) for group in points]
    if not any(bars):
        return None
    ends = [bar or (mean, mean) for bar, mean in zip(bars, means, strict=True)]
    # a mean may be outside of its bar by a rounding
    down = [max(0.0, mean - low) for (low, _), mean in zip(ends, means, strict=True)]
    up = [max(0.0, high - mean) for (_, high), mean in zip(ends, means, strict=True)]
    return [down, up]


def look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of a picture's line by its number."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": "-" if number < len(_COLOURS) else "--",
        "markersize": 5,
        "linewidth": 1.2,
    }


def _handle(number: int, label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **look(number))


def _meaning_of_bars(series: Sequence[Series]) -> str:
    groups = [group for line in series for group in line.groups]
    told = ["held-out rows"]
    if any(len(g.runs) == 1 and any(g.first.interval(name) for name in PANELS) for g in groups):
        told.append("bars of one run: 95 % interval")
    if any(len(group.runs) > 1 for group in groups):
        told.append("several seeds: mean, bars from the smallest to the largest")
    return "; ".join(told)
