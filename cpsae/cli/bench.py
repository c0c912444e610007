"""`cpsae bench`: how fast this machine runs the stages, as ratios to a floor."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cpsae.cli.options import F, output_options, terminal_of

if TYPE_CHECKING:
    from cpsae.bench.side_by_side import Table
    from cpsae.cli.terminal import Terminal


class _Shape(click.ParamType):  # type: ignore[type-arg]
    """d x n."""

    name = "shape"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """Raises UsageError."""
        d, _, n = str(value).partition("x")
        if not (d.isdecimal() and n.isdecimal() and int(d) and int(n)):
            self.fail(f"'{value}': expected DxN, like 576x4608", param, ctx)
        return int(d), int(n)


def _count(flag: str, least: int, default: int, text: str) -> Callable[[F], F]:
    return click.option(
        flag,
        type=click.IntRange(least),
        default=default,
        show_default=True,
        metavar="N",
        help=text,
    )


@click.command(short_help="Time the stages against what they cannot do without.")
@click.argument("what", type=click.Choice(["extract", "feed", "fit", "all"]), default="all")
@click.option(
    "--shape",
    "shapes",
    type=_Shape(),
    multiple=True,
    default=["2304x2304", "576x4608"],
    show_default=True,
    metavar="DxN",
    help="fit: width of rows and number of features; repeatable.",
)
@click.option(
    "--presets",
    default="baseline,paper,topk,batchtopk,jumprelu",
    show_default=True,
    metavar="NAME,NAME",
    help="fit: whose updates.",
)
@_count("--batch-size", 1, 2048, "fit, feed: rows.")
@click.option(
    "--model", metavar="ID|PATH", help="extract: another model than the demo's, with --dataset."
)
@click.option("--dataset", metavar="ID|PATH", help="extract: the text for it.")
@click.option("--layer", type=click.IntRange(0), metavar="N", help="extract: of the model.")
@_count("--tokens", 2, 128, "extract: of a context.")
@_count("--vectors", 1000, 40_000, "extract: how many.")
@_count("--rounds", 1, 5, "Of each measurement; medians are shown.")
@_count("--threads", 1, 1, "CPU threads of matrix products.")
@click.option(
    "--folder", type=click.Path(exists=True, file_okay=False), metavar="FOLDER",
    help="Where stores are made for a while; by default where temporary files go.",
)  # fmt: skip
@click.option(
    "--device", default="auto", show_default=True, metavar="DEVICE",
    help="auto, cpu, cuda or cuda:I.",
)  # fmt: skip
@output_options
def command(what: str, **values: Any) -> None:
    """Time stages side by side with what they cannot do without: an update of training with its
    five matrix products, shuffled batches with copying memory, extraction with the model's bare
    forward pass. Ratios are to that floor: 1 is as fast, 0.5 takes twice as long.

    SAELens, dictionary_learning and sparsify are timed too where they are installed.
    """
    if (values["model"] is None) != (values["dataset"] is None):
        raise click.UsageError("--model and --dataset: go together; give both or neither")
    with terminal_of(values) as terminal:
        import torch

        from cpsae.cli.memory import keep_freed_blocks

        keep_freed_blocks()
        torch.set_num_threads(values["threads"])
        tables = []
        for table in _tables(what, terminal, **values):
            tables.append(table)
            if not terminal.as_json:
                _show(terminal, table)
        if not terminal.as_json:
            return
        machine = {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability()}
        kept = {"threads": values["threads"], "device": values["device"]}
        terminal.result({**machine, **kept, "tables": [table.as_json() for table in tables]})


def _tables(what: str, terminal: "Terminal", **values: Any) -> "Iterator[Table]":
    from cpsae.device import choose_device

    device = choose_device(values["device"])
    folder = Path(values["folder"]) if values["folder"] else None
    rounds, batch, hear = values["rounds"], values["batch_size"], terminal.on_event
    if what in ("fit", "all"):
        from cpsae.bench.fit import bench_fit

        presets = [name.strip() for name in values["presets"].split(",")]
        for d, n in values["shapes"]:
            yield bench_fit(d, n, batch, device, presets, rounds, hear)
    if what in ("feed", "all"):
        from cpsae.bench.feed import bench_feed

        yield bench_feed(2304, batch, rounds=rounds, folder=folder, on_event=hear)
    if what in ("extract", "all"):
        import tempfile

        from cpsae.bench.extract import bench_extract

        with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as place:
            settings = _extraction(Path(place), values)
            yield bench_extract(settings, rounds, folder, hear)


def _extraction(place: Path, values: dict[str, Any]) -> Any:
    """Of the model that was named, or of the demo's."""
    from cpsae.config import ExtractSettings
    from cpsae.demo.corpus import write_corpus
    from cpsae.demo.run import LAYER, MODEL

    named = values["model"] is not None
    return ExtractSettings(
        model=values["model"] if named else str(MODEL),
        dataset=values["dataset"] if named else str(write_corpus(place / "corpus.jsonl")),
        layer=values["layer"] if values["layer"] is not None else 19 if named else LAYER,
        vectors=values["vectors"],
        tokens=values["tokens"],
        device=values["device"],
    )


def _show(terminal: "Terminal", table: "Table") -> None:
    columns = ["", "of the floor", "from", "to", "vectors/s"]
    rows = [
        [line.name, line.of_floor, line.lowest, line.highest, round(line.rate)]
        for line in table.lines
    ]
    terminal.grid(f"{table.title}: floor is {table.floor}", columns, rows)
