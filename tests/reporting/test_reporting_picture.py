"""The picture, read back from its SVG: texts, points, bars, and the same bytes again."""

import hashlib
import io
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from cpsae.reporting.picture import draw
from cpsae.reporting.runs import Group, Run
from cpsae.reporting.series import Series, series_of

SVG = "{http://www.w3.org/2000/svg}"


def group(preset, l0, explained, score=None, seed=0, **more):
    figures = {"l0": l0, "explained_variance": explained, "ce_loss_score": score, **more}
    run = Run(Path(preset), preset, preset, {"seed": seed}, 8, 10, "a", "a", figures=figures)
    return Group(preset, [run])


def frontier():
    return [
        Series(
            kind,
            [group(kind, l0, 0.1 * i + l0 / 1000, 0.9 + l0 / 9000) for l0 in (20, 40, 80, 160)],
        )
        for i, kind in enumerate(["relu", "topk", "batchtopk"])
    ]


def parts(content):
    """All texts, and the (x, y) of each line's points, by the line's id."""
    root = ElementTree.fromstring(content)
    points = {
        element.get("id"): [
            (float(use.attrib["x"]), float(use.attrib["y"])) for use in element.iter(f"{SVG}use")
        ]
        for element in root.iter(f"{SVG}g")
        if re.fullmatch(r"[a-z_]+-\d+", element.get("id", ""))
    }
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")], points


def test_texts_and_points() -> None:
    texts, points = parts(draw(frontier(), "svg"))
    for text in ("relu", "topk", "batchtopk", "explained variance", "CE-loss score", "20", "100"):
        assert text in texts, text
    assert {name: len(found) for name, found in points.items()} == {
        f"{panel}-{number}": 4
        for panel in ("explained_variance", "ce_loss_score")
        for number in range(3)
    }


@pytest.mark.parametrize("panel", ["explained_variance", "ce_loss_score"])
def test_points_are_where_the_figures_are(panel) -> None:
    """On the page x is a straight line of log L0, and y one of the figure, downwards."""
    points = parts(draw(frontier(), "svg"))[1]
    found = np.array([points[f"{panel}-{number}"] for number in range(3)])
    drawn = frontier()
    l0 = [[g.first.figures["l0"] for g in line.groups] for line in drawn]
    value = [[g.first.figures[panel] for g in line.groups] for line in drawn]
    for own, expected, sign in ((0, np.log(l0), 1), (1, np.array(value), -1)):
        slope, start = np.polyfit(expected.ravel(), found[..., own].ravel(), 1)
        assert slope * sign > 0
        assert np.allclose(slope * expected + start, found[..., own], atol=0.01)


def test_what_has_no_figure_is_absent_and_l0_of_0_too() -> None:
    line = Series("relu", [group("relu", 0.0, 0.1), group("relu", 9, 0.5), group("relu", 20, None)])
    texts, points = parts(draw([line], "svg"))
    assert {name: len(found) for name, found in points.items()} == {"explained_variance-0": 1}
    assert "no run has this figure yet" in texts


def test_bars_are_intervals_or_seeds() -> None:
    """A caption says what bars there are; a bar spans what it is of."""
    plain = parts(draw([Series("relu", [group("relu", 9, 0.5)])], "svg"))[0]
    assert not [text for text in plain if "bars" in text]
    low, high = group("relu", 10, 0.2), group("relu", 10, 0.6)
    measured = group("topk", 10, 0.5, explained_variance_ci=[0.3, 0.7])
    seeds = Group("relu", [low.runs[0], high.runs[0], group("relu", 10, 0.4).runs[0]])
    content = draw([Series("relu", [seeds]), Series("topk", [measured])], "svg")
    texts, points = parts(content)
    assert any("95 % interval" in t and "from the smallest to the largest" in t for t in texts)
    bars = re.findall(rb'd="M ([\d.]+) ([\d.]+) \nL ([\d.]+) ([\d.]+) \n"', content)
    upright = [(float(x), *sorted((float(y), float(v)))) for x, y, u, v in bars if x == u != y]
    for name, reach in (("explained_variance-0", 0.2), ("explained_variance-1", 0.2)):
        [(x, y)] = points[name]
        a_unit = (points["explained_variance-0"][0][1] - points["explained_variance-1"][0][1]) / 0.1
        expected = (x, y - reach * a_unit, y + reach * a_unit)
        assert any(np.allclose(bar, expected, atol=0.01) for bar in upright), (name, upright)


def test_the_same_bytes_again(tmp_path) -> None:
    """Also in another process, and where somebody has a matplotlibrc."""
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nsvg.fonttype: path\nsavefig.dpi: 30\n")
    program = (
        "import hashlib; from test_reporting_picture import draw, frontier\n"
        "print(*(hashlib.sha256(draw(frontier(), f)).hexdigest() for f in ('svg', 'png')))"
    )
    here = str(Path(__file__).parent)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {here!r})\n{program}"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        for file_format, sha in zip(("svg", "png"), done.stdout.split(), strict=True):
            assert hashlib.sha256(draw(frontier(), file_format)).hexdigest() == sha, file_format


def test_it_is_800_pixels_wide_and_grows_for_its_legend() -> None:
    sizes = []
    for count in (1, 12):
        lines = [Series(f"kind number {i}", [group("relu", 9, 0.5)]) for i in range(count)]
        png = draw(lines, "png")
        assert png.startswith(b"\x89PNG")
        sizes.append(struct.unpack(">II", png[16:24]))
    assert [width for width, _ in sizes] == [800, 800]
    assert sizes[0][1] < sizes[1][1]


def test_no_two_lines_look_alike() -> None:
    lines = [Series(f"{i}", [group("relu", 9, 0.5)]) for i in range(20)]
    root = ElementTree.fromstring(draw(lines, "svg"))
    looks = set()
    for element in root.iter(f"{SVG}g"):
        if re.fullmatch(r"explained_variance-\d+", element.get("id", "")):
            [use] = element.iter(f"{SVG}use")
            [shape] = [p for p in element.iter(f"{SVG}path") if p.get("id")]
            looks.add((use.get("style"), shape.get("d")))
    assert len(looks) == 20


def test_no_run_at_all() -> None:
    assert series_of([]) == []
    assert parts(draw([], "svg"))[0].count("no run has this figure yet") == 2


@pytest.mark.parametrize("letters", [20, 45, 80, 250])
def test_long_labels_stay_inside(letters) -> None:
    """Nothing is drawn in the outermost columns of pixels, on which cut letters would stand."""
    label = ("setting=value, " * 20)[:letters]
    series = [
        Series(f"{label} {i}", [group("relu", 20 + i, 0.5, 0.9), group("relu", 40 + i, 0.6, 0.95)])
        for i in range(5)
    ]
    pixels = matplotlib.image.imread(io.BytesIO(draw(series, "png")))[..., :3]
    assert (pixels[:, :2] > 0.99).all() and (pixels[:, -2:] > 0.99).all()
    assert (pixels[-2:] > 0.99).all()
