"""A whole recipe with one command: activations, autoencoders, evaluation, a table and pictures.

    python pipelines/recipe.py paper
    python pipelines/recipe.py frontier --size small --model SmolLM2.gguf --dataset text.jsonl

The recipe is a folder beside this file, the size a file of pipelines/sizes; or either is a path.
Every command that is run is printed. Stopped or killed, the same command goes on where it was.
"""

import argparse
import json
import shlex
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cpsae.config.base import Settings
from cpsae.config.resolve import flatten, nest, parse_assignments, read_recipe
from cpsae.errors import CpsaeError, SettingsError

HERE = Path(__file__).parent
CPSAE = (sys.executable, "-m", "cpsae")
S = TypeVar("S", bound=Settings)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Fits(Settings):
    """One `cpsae fit`: a run, or a sweep."""

    preset: str
    set: dict[str, Any] = {}
    sweep: dict[str, list[Any]] = {}


class Recipe(Settings):
    """What is trained, by the names of its folders, and what the table and pictures show of it."""

    runs: dict[str, Fits]
    columns: list[str] = []
    """More columns of the table."""
    course: list[str] = []
    """Runs whose course is drawn: their paths below the recipe's folder."""


class Size(Settings):
    """Settings of each command."""

    extract: dict[str, Any] = {}
    fit: dict[str, Any] = {}
    evaluate: dict[str, Any] = {}


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or the exit code of what failed."""
    options = _options(arguments)
    try:
        recipe = _read(Recipe, options.recipe, HERE / options.recipe / "recipe.toml")
        size = _read(Size, options.size, HERE / "sizes" / f"{options.size}.toml")
        return make(recipe, size, options)
    except CpsaeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def make(recipe: Recipe, size: Size, options: argparse.Namespace) -> int:
    """Run what is not done yet. Without a store nothing is trained; else what fails is told at the
    end, and the rest is made. Raises CpsaeError."""
    fits = list(fit_commands(recipe, size, options))
    if options.store is None:
        code = run(extract_command(size, options))
        if code:
            return code
    failed = [command for command in fits if run(command)]
    try:
        failed += [command for command in evaluations(size, options) if run(command)]
        report(recipe, options)
    finally:
        for command in failed:
            print(f"failed: cpsae {shlex.join(command)}", file=sys.stderr)
    return 1 if failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="paper, ablations, readings, frontier, or a .toml file")
    parser.add_argument("--size", default="full", help="full, small, or a .toml file")
    parser.add_argument("--model", help="another language model than the size's")
    parser.add_argument("--dataset", help="another corpus than the size's")
    parser.add_argument("--store", type=Path, help="a store that is there: nothing is extracted")
    parser.add_argument("--out", type=Path, help="its folder  [default: recipes-SIZE]")
    parser.add_argument("--only", help="some of the recipe's runs: NAME,NAME")
    parser.add_argument("--seeds", type=int, default=1, help="that many of each run")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of every fit"
    )
    options = parser.parse_args(arguments)
    options.out = options.out or Path(f"recipes-{Path(options.size).stem}")
    name = Path(options.recipe)
    options.folder = options.out / (name.parent.name if name.stem == "recipe" else name.stem)
    return options


def _read(group: type[S], name: str, own: Path) -> S:
    """What is in a TOML file: `own`, or what `name` is the path of. Raises SettingsError."""
    path = own if own.exists() else Path(name)
    path = path / "recipe.toml" if path.is_dir() else path
    values = nest(read_recipe(path))
    try:
        return group(**values)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def store_of(options: argparse.Namespace) -> Path:
    """The store that is trained on."""
    store: Path = options.store or options.out / "acts.zarr"
    return store


def extract_command(size: Size, options: argparse.Namespace) -> list[str]:
    """`cpsae extract` into the store that all recipes of an output folder share."""
    asked = {"model": options.model, "dataset": options.dataset, "store": f"{store_of(options)}"}
    settings = size.extract | {key: value for key, value in asked.items() if value is not None}
    return ["extract", *(text for key, value in settings.items() for text in _flag(key, value))]


def fit_commands(recipe: Recipe, size: Size, options: argparse.Namespace) -> Iterator[list[str]]:
    """`cpsae fit` for each of the recipe's runs. Raises SettingsError."""
    wanted = options.only.split(",") if options.only else list(recipe.runs)
    unknown = [name for name in wanted if name not in recipe.runs]
    if unknown:
        raise SettingsError(f"--only {unknown[0]}: expected some of {', '.join(recipe.runs)}")
    for name in wanted:
        fits = recipe.runs[name]
        sweep = {key: [_text(value) for value in values] for key, values in fits.sweep.items()}
        if options.seeds > 1:
            sweep["seed"] = [str(seed) for seed in range(options.seeds)]
        chosen = flatten(size.fit) | flatten(fits.set) | parse_assignments(tuple(options.set))
        yield [
            *("fit", "--store", str(store_of(options)), "--out", str(options.folder / name)),
            *("--preset", fits.preset),
            *(text for key, value in chosen.items() for text in ("--set", f"{key}={_text(value)}")),
            *(t for key, values in sweep.items() for t in ("--sweep", f"{key}={','.join(values)}")),
        ]


def evaluations(size: Size, options: argparse.Namespace) -> Iterator[list[str]]:
    """`cpsae evaluate` of all finished runs that were not yet put through the language model: one
    command, for which it runs as it is once."""
    from cpsae.stages.found_runs import find_runs, read_run

    more = [text for key, value in size.evaluate.items() for text in _flag(key, value)]
    found = [read_run(path) for path in find_runs([options.folder])]
    new = [str(r.path) for r in found if r.finished and r.value("ce_loss_score") is None]
    if new:
        yield ["evaluate", *new, "--model", "store", *more]


def report(recipe: Recipe, options: argparse.Namespace) -> None:
    """Write table.md, comparison.json, comparison.svg and course.svg. Raises CpsaeError."""
    from course import draw_course

    from cpsae.durable import write_atomic
    from cpsae.events import Note
    from cpsae.json_files import write_object
    from cpsae.stages.compare import compare

    folder = options.folder
    compared = compare(
        folder,
        folder / "comparison.svg",
        columns=recipe.columns,
        on_event=lambda event: print(event.text) if isinstance(event, Note) else None,
    )
    write_atomic(folder / "table.md", f"{compared.markdown()}\n".encode())
    write_object(folder / "comparison.json", compared.as_json())
    paths = {run.path.relative_to(folder).as_posix(): run.path for run in compared.runs.values()}
    drawn = {name: paths[first] for name in recipe.course if (first := _first(name, paths))}
    if drawn:
        draw_course(drawn, folder / "course.svg")
    print(compared.markdown())


def run(arguments: Sequence[str]) -> int:
    """Run one command of cpsae and hand it the signals that come meanwhile, each once: it writes a
    checkpoint first. Ends this program too where one ended the command."""
    print(f"$ cpsae {shlex.join(arguments)}", flush=True)
    came: deque[int] = deque()
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {
        number: signal.signal(number, lambda number, _frame: came.append(number))
        for number in heeded
    }
    try:
        # of a group of its own: a Ctrl-C reaches this program alone, which hands it on
        child = subprocess.Popen([*CPSAE, *arguments], process_group=0)
        while (code := _ended(child)) is None:
            while came:
                child.send_signal(came.popleft())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code < 0 or code - 128 in SIGNALS:
        sys.exit(code if code > 0 else 128 - code)
    return code


def _ended(child: subprocess.Popen[bytes]) -> int | None:
    """How it ended; None where it has not within a moment. A longer wait would miss a signal that
    comes just before it begins."""
    try:
        return child.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        return None


def _first(name: str, paths: Iterable[str]) -> str | None:
    """The run of this name; of several seeds, the first."""
    return next((p for p in paths if p == name or p.startswith((f"{name}/", f"{name},"))), None)


def _flag(key: str, value: Any) -> list[str]:
    flag = f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else []
    return [flag, _text(value)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    sys.exit(main())
