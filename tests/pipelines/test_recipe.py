"""Recipes: what they ask for, and one from end to end, stopped and killed on its way."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import recipe
from run_files import write_run
from tiny import LAYER, TOKENS, content_of

from cpsae.config import ExtractSettings
from cpsae.config.resolve import parse_assignments
from cpsae.sae.kinds import kind_names
from cpsae.sae.normalization import NAMES as NORMALIZATIONS
from cpsae.stages.sweep import sweep
from cpsae.training.recipes import preset, resolve_fit
from cpsae.training.sweep import members, parse_axes

PIPELINES = Path(recipe.__file__).parent
RECIPES = sorted(
    file.parent.name for file in PIPELINES.glob("*/recipe.toml") if "demo" not in str(file)
)

RUNS = """
columns = ["initial_loss"]
course = ["btk/k=4"]
[runs.btk]
preset = "batchtopk"
set.lr = 0.001
sweep.k = [2, 4]
"""
SIZE = f"""
[extract]
layer = {LAYER}
tokens = {TOKENS}
vectors = "3k"
device = "cpu"
[fit]
batch_size = 64
steps = 300
checkpoint_every = 20
device = "cpu"
[evaluate]
contexts = 2
"""


def asked(*arguments):
    """Recipe, size and options of a command line."""
    options = recipe._options([*map(str, arguments)])
    return (
        recipe._read(recipe.Recipe, options.recipe, PIPELINES / options.recipe / "recipe.toml"),
        recipe._read(recipe.Size, options.size, PIPELINES / f"sizes/{options.size}.toml"),
        options,
    )


def values_of(command, flag):
    return [value for name, value in zip(command, command[1:], strict=False) if name == flag]


STEPS = {"full": None, "small": 1000, "narrow": 500, "wide": 500, "widest": 400}


def test_there_are_five() -> None:
    assert RECIPES == ["ablations", "duel", "frontier", "paper", "readings"]
    assert sorted(STEPS) == sorted(file.stem for file in (PIPELINES / "sizes").glob("*.toml"))


@pytest.mark.parametrize("size", STEPS)
@pytest.mark.parametrize("name", RECIPES)
def test_every_fit_is_one_that_cpsae_takes(name, size) -> None:
    """Presets, settings and swept values."""
    found = list(recipe.fit_commands(*asked(name, "--size", size)))
    assert len(found) >= 2
    folders = [values_of(command, "--out")[0] for command in found]
    assert len(set(folders)) == len(folders)
    for command in found:
        early = "early" in values_of(command, "--out")[0]
        steps = 350 if early else STEPS[size]
        assert all(run.settings.steps == steps for run in runs_of(command))


def runs_of(command):
    """What `cpsae fit` makes of a command line."""
    [chosen] = values_of(command, "--preset")
    layers = {
        "--set": parse_assignments(tuple(values_of(command, "--set"))),
        f"preset {chosen}": preset(chosen),
    }
    axes = parse_axes(values_of(command, "--sweep"))
    return members(axes, lambda swept: resolve_fit({"--sweep": swept, **layers}).settings)


@pytest.mark.parametrize("size", STEPS)
def test_stage_one(size) -> None:
    command = recipe.extract_command(*asked("paper", "--size", size)[1:])
    keys = [key.removeprefix("--").replace("-", "_") for key in command[1::2]]
    settings = ExtractSettings(**dict(zip(keys, command[2::2], strict=True)))
    assert settings.store == f"recipes-{size}/acts.zarr"
    if size == "full":  # the paper's
        changes = {"store": "acts.zarr", "dtype": "auto"}
        assert settings.model_copy(update=changes) == ExtractSettings()
        assert settings.dtype == "bfloat16"


def test_the_frontier_has_every_kind() -> None:
    found, _, _ = asked("frontier")
    kinds = [preset(fits.preset)["kind"] for fits in found.runs.values()]
    assert sorted(kinds) == sorted(kind_names())
    for fits in found.runs.values():
        [(key, values)] = fits.sweep.items()
        assert key == "l1" or values == [20, 40, 80, 160, 400]


def test_the_readings_of_layer_normalization() -> None:
    found, _, _ = asked("readings")
    assert {fits.preset for fits in found.runs.values()} == {"paper", "baseline"}
    for fits in found.runs.values():
        assert sorted(fits.sweep["normalize"]) == sorted(NORMALIZATIONS)


def test_options(tmp_path) -> None:
    commands = list(
        recipe.fit_commands(
            *asked(
                "ablations", "--only", "no-ema,initial-features", "--seeds", 2, "--set", "steps=7"
            )
        )
    )
    assert commands == [
        [
            *("fit", "--store", "recipes-full/acts.zarr", "--out", "recipes-full/ablations/no-ema"),
            *("--preset", "paper", "--set", "importance_beta=0.0", "--set", "steps=7"),
            *("--sweep", "seed=0,1"),
        ],
        [
            *("fit", "--store", "recipes-full/acts.zarr"),
            *("--out", "recipes-full/ablations/initial-features", "--preset", "paper"),
            *("--set", "steps=7", "--sweep", "initial_fraction=0.5,1.0"),
            *("--sweep", "seed=0,1"),
        ],
    ]
    values = asked("paper", "--dataset", "text.jsonl", "--model", "m.gguf", "--out", tmp_path)
    command = recipe.extract_command(*values[1:])
    assert values_of(command, "--dataset") == ["text.jsonl"]
    assert values_of(command, "--model") == ["m.gguf"]
    assert values_of(command, "--store") == [str(tmp_path / "acts.zarr")]
    stored = next(recipe.fit_commands(*asked("paper", "--store", "my.zarr")))
    assert values_of(stored, "--store") == ["my.zarr"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["paper", "--only", "x"], "error: --only x: expected some of paper, baseline"),
        (["nothing.toml"], "error: recipe nothing.toml: cannot be read"),
        (["paper", "--size", "huge"], "error: recipe huge: cannot be read"),
        (["wrong.toml"], "error: wrong.toml: runs.a.presets = 'paper'"),
    ],
)
def test_refusals(tmp_path, monkeypatch, capsys, arguments, text) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.toml").write_text('[runs.a]\npresets = "paper"\npreset = "paper"\n')
    assert recipe.main(arguments) == 1
    told = capsys.readouterr().err
    assert told.startswith(text) and told.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["wrong.toml"]


def start(folder, gemma, corpus):
    """The small recipe in a process of its own, whose output goes to log.txt."""
    (folder / "tiny.toml").write_text(RUNS)
    (folder / "size.toml").write_text(SIZE)
    arguments = [
        *(sys.executable, recipe.__file__, folder / "tiny.toml", "--size", folder / "size.toml"),
        *("--model", gemma, "--dataset", corpus, "--out", folder / "out"),
    ]
    log = (folder / "log.txt").open("w")
    return subprocess.Popen([*map(str, arguments)], stdout=log, stderr=subprocess.STDOUT)


def finished(process, folder):
    """The commands that were run, and all lines."""
    code = process.wait(timeout=240)
    lines = (folder / "log.txt").read_text().splitlines()
    assert code == 0, lines
    return [line.split()[2:] for line in lines if line.startswith("$ cpsae ")], lines


def test_stopped_in_the_middle_then_to_the_end_then_nothing_to_do(gemma, corpus, tmp_path) -> None:
    runs = tmp_path / "out/tiny"
    process = start(tmp_path, gemma, corpus)
    end = time.monotonic() + 120
    while not (runs / "btk/k=2/checkpoints/step-000040").exists():
        assert process.poll() is None and time.monotonic() < end, (tmp_path / "log.txt").read_text()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)  # to the recipe alone, which hands it on
    assert process.wait(timeout=60) == 143
    assert not (runs / "btk/.lock").exists() and not (runs / "btk/k=2/summary.json").exists()

    commands, _ = finished(start(tmp_path, gemma, corpus), tmp_path)
    assert [command[0] for command in commands] == ["extract", "fit", "evaluate"]
    folders = [f"{runs}/btk/k={k}" for k in (2, 4)]
    assert commands[2][1:] == [*folders, "--model", "store", "--contexts", "2"]
    check_results(runs)
    unbroken = sweep(
        tmp_path / "out/acts.zarr", runs_of(commands[1]), out=tmp_path / "at-once"
    ).path
    for name in ("k=2/sae.safetensors", "k=4/sae.safetensors"):
        assert (runs / "btk" / name).read_bytes() == (unbroken / name).read_bytes()

    before = content_of(runs)
    times = {path: path.stat().st_mtime_ns for path in runs.glob("btk/*/*")}
    commands, lines = finished(start(tmp_path, gemma, corpus), tmp_path)
    assert [command[0] for command in commands] == ["extract", "fit"]
    assert sum(line.endswith("is complete") for line in lines) == 2
    assert content_of(runs) == before
    assert times == {path: path.stat().st_mtime_ns for path in runs.glob("btk/*/*")}


def check_results(folder):
    headings, _, *rows = (folder / "table.md").read_text().splitlines()
    assert [row.split("|")[1].strip() for row in rows] == ["k=2", "k=4"]
    assert headings.endswith("| initial_loss |")
    content = json.loads((folder / "comparison.json").read_text())
    for run in content["runs"]:
        summary = json.loads(Path(run["path"], "summary.json").read_text())
        assert run["figures"]["initial_loss"] == summary["initial_loss"]
        assert run["figures"]["ce_loss_score"] is not None and run["steps"] == 300
        assert run["settings"]["lr"] == 0.001
    assert ">batchtopk</text>" in (folder / "comparison.svg").read_text()
    course = (folder / "course.svg").read_text()
    assert ">btk/k=4</text>" in course and ">temperature T</text>" in course


_SLOW = "import time; print('ready', flush=True); time.sleep(60)"
_ENDS_WELL = (
    f"import signal, sys; signal.signal(NUMBER, lambda *_: sys.exit(128 + NUMBER)); {_SLOW}"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_handed_on_and_ends_the_recipe(number) -> None:
    command = _ENDS_WELL.replace("NUMBER", str(int(number)))
    program = (
        f"import sys; sys.path.insert(0, {str(PIPELINES)!r}); import recipe\n"
        f"recipe.CPSAE = (sys.executable, '-c', {command!r})\n"
        "recipe.run(['fit']); print('went on')"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["$ cpsae fit\n", "ready\n"]
    process.send_signal(number)
    assert process.wait(timeout=30) == 128 + number
    assert process.stdout.read() == ""


@pytest.mark.parametrize(
    ("ending", "code"), [("sys.exit(1)", 1), ("os.kill(os.getpid(), 9)", None), ("0", 0)]
)
def test_what_a_command_comes_to(monkeypatch, ending, code) -> None:
    """Killed as by a lack of memory, it ends the recipe too."""
    monkeypatch.setattr(recipe, "CPSAE", (sys.executable, "-c", f"import os, sys; {ending}"))
    if code is None:
        with pytest.raises(SystemExit) as ended:
            recipe.run(["fit"])
        assert ended.value.code == 137
    else:
        assert recipe.run(["fit"]) == code
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_fails_is_told_and_the_rest_is_made(tmp_path, monkeypatch, capsys) -> None:
    done = []

    def run(command):
        done.append(command)
        if "baseline" in command:
            return 1
        if command[0] == "fit":
            name = f"{values_of(command, '--out')[0]}/l1=0.04"
            write_run(Path(name), "paper", "competitive", {"l0": 9.0, "explained_variance": 0.5})
        return 0

    monkeypatch.setattr(recipe, "run", run)
    assert recipe.main(["paper", "--out", str(tmp_path / "out")]) == 1
    assert [command[0] for command in done] == ["extract", "fit", "fit", "evaluate"]
    told = capsys.readouterr()
    assert told.err.startswith("failed: cpsae fit") and "--preset baseline" in told.err
    assert told.err.count("failed:") == 1
    assert "| l1=0.04 | paper (competitive) |" in (tmp_path / "out/paper/table.md").read_text()
    assert (tmp_path / "out/paper/comparison.svg").exists()


def test_without_a_store_nothing_is_fitted(tmp_path, monkeypatch) -> None:
    done = []

    def run(command):
        done.append(command[0])
        return 1

    monkeypatch.setattr(recipe, "run", run)
    assert recipe.main(["paper", "--out", str(tmp_path)]) == 1
    assert done == ["extract"]


def test_all_fits_fail(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(recipe, "run", lambda command: int(command[0] == "fit"))
    assert recipe.main(["paper", "--out", str(tmp_path)]) == 1
    *failed, last = capsys.readouterr().err.splitlines()
    assert len(failed) == 2 and last.startswith(f"error: {tmp_path / 'paper'}: no such folder")
