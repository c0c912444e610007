"""`cpsae fit` and `cpsae evaluate`: results, repeats, and a line for every bad input."""

import json
import signal

import pytest
from refusals import assert_refused
from tiny import content_of

from cpsae.cli import interrupts
from cpsae.store.bucket import Folder
from cpsae.store.metadata import read_manifest, write_manifest

TRAINED = ("--steps", 20, "--batch-size", 64, "--device", "cpu")


@pytest.fixture
def fit(command, store, tmp_path):
    """fit(*options) on a copy of a small store; later options win."""

    def run(*options: object):
        return command("fit", "--store", store, "--out", tmp_path / "run", *TRAINED, *options)

    return run


def test_a_run_and_its_repetition(fit, tmp_path) -> None:
    done = fit("--json")
    content = json.loads(done.out)
    assert content["path"] == str(tmp_path / "run")
    assert (content["steps"], content["rows"]) == (20, 1280)
    before = content_of(tmp_path / "run")
    again = fit()
    assert again.code == 0 and f"{tmp_path / 'run'} is complete" in again.err
    assert "explained_variance" in again.out
    assert content_of(tmp_path / "run") == before


def test_fresh_renames_aside(fit, tmp_path) -> None:
    fit()
    before = content_of(tmp_path / "run")
    done = fit("--fresh", "--seed", 1)
    assert done.code == 0 and f"run is kept as {tmp_path / 'run.old-1'}" in done.err
    assert content_of(tmp_path / "run.old-1") == before


def test_the_default_folder_names_preset_and_settings(
    command, store, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("fit", "--store", store, *TRAINED, "--preset", "topk", "--json")
    first, second = (json.loads(command(*arguments).out)["path"] for _ in range(2))
    assert first == second
    assert first.startswith("runs/topk-") and len(first) == len("runs/topk-") + 8


def test_print_config_says_where_each_value_is_from(command, tmp_path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("lr = 0.5\nl1 = 0.5\nseed = 5\nwarmup_steps = 7\n")
    arguments = ("--recipe", recipe, "--set", "l1=0.25", "--set", "seed=6", "--seed", "7")
    done = command("fit", "--preset", "baseline", *arguments, "--print-config", "--json")
    found = {key: (value["value"], value["from"]) for key, value in json.loads(done.out).items()}
    assert found["seed"] == (7, "option")
    assert found["l1"] == (0.25, "--set")
    assert found["lr"] == (0.5, f"recipe {recipe}")
    assert found["warmup_steps"] == (7, f"recipe {recipe}")
    assert found["kind"] == ("relu", "preset baseline")
    assert found["batch_size"] == (2048, "default")
    plain = command("fit", "--set", "l1=0.25", "--print-config")
    assert "l1 = 0.25  (--set)\n" in plain.out
    assert not list(tmp_path.glob("runs*"))


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--preset", "best"], 2, r"preset best: expected one of paper, baseline, "),
        (["--set", "l1"], 2, r"--set l1: expected KEY=VALUE, like --set l1=0.04"),
        (["--set", "stepz=1"], 2, r"--set: there is no setting 'stepz': did you mean steps"),
        (["--set", "l1=-1"], 2, r"l1 = -1 \(from --set\): expected 0 or more"),
        (["--set", "normalize=best"], 2, r"normalize = 'best' \(from --set\): "),
        (["--set", "temperature.min=1"], 2, r"temperature.min \(1.0\) is above temperature.max"),
        (["--steps", "0"], 2, r"steps = '0' \(from option\): "),
        (["--lr", "fast"], 2, r"lr = 'fast' \(from option\): "),
        (["--lr", "nan"], 2, r"lr = 'nan' \(from option\): "),
        (["--batch-size", "1M"], 1, r"batch_size 1000000 is above the store's 3000 training rows"),
        (["--recipe", "/no/such.toml"], 1, r"recipe /no/such.toml: cannot be read"),
        (["--store", "/no/such.zarr"], 1, r"/no/such.zarr: no such store; give the folder that"),
        (["--device", "tpu"], 2, r"device = 'tpu' \(from option\)"),
    ],
)
def test_bad_options(fit, tmp_path, options, code, text) -> None:
    assert_refused(lambda: fit(*options), tmp_path, code, text)


def test_a_folder_that_is_no_store(fit, tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    text = r"folder: is no store \(it has no zarr.json\); give the folder that `cpsae extract`"
    assert_refused(lambda: fit("--store", tmp_path / "folder"), tmp_path, 1, text)


def test_broken_metadata(fit, store, tmp_path) -> None:
    (store / "zarr.json").write_text("{")
    assert_refused(fit, tmp_path, 1, r"zarr.json: is not readable JSON .*; restore this file from")


@pytest.mark.parametrize("key", ["activations/c/1/0", "tokens/c/0/0", "statistics/norms/c/0"])
def test_a_missing_chunk(fit, store, tmp_path, key) -> None:
    (store / key).unlink()
    assert_refused(fit, tmp_path, 1, rf"{key}: missing; run `cpsae verify .*acts.zarr --repair`")


def test_a_truncated_chunk(fit, store, tmp_path) -> None:
    with (store / "activations/c/1/0").open("r+b") as file:
        file.truncate(1000)
    assert_refused(fit, tmp_path, 1, r"activations/c/1/0: not \d+ bytes long \(cut short or forei")


def test_a_flipped_bit_is_found_before_anything_is_learned_from_it(fit, store) -> None:
    flip(store / "activations/c/1/0")
    done = fit()
    assert done.code == 1
    assert "activations/c/1/0: corrupt (its checksum does not match" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


def test_an_unfinished_store_needs_allow_partial(fit, store, tmp_path) -> None:
    manifest = read_manifest(Folder(store))
    write_manifest(Folder(store), manifest.model_copy(update={"complete": False}))
    (store / "activations/c/2/0").unlink()
    text = r"is unfinished \(4 of 5 chunks\); run the same `cpsae extract` command again to finish"
    assert_refused(fit, tmp_path, 1, text)
    assert fit("--allow-partial").code == 0


def test_other_settings_list_each_difference(fit, tmp_path) -> None:
    fit()
    text = r"begun with other settings \(l1: 0.04, not 0.5; seed: 0, not 9\); give the same ones,"
    assert_refused(lambda: fit("--seed", 9, "--l1", "0.5"), tmp_path, 1, text)


def test_a_second_process(fit, tmp_path) -> None:
    from cpsae.locks import writer_lock

    with writer_lock(tmp_path / "run", "run"):
        text = r"another process \(pid \d+\) is writing this run; wait until it ends or stop it"
        assert_refused(fit, tmp_path, 1, text)


def test_several_workers(fit, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    expected = r"worker 0 of 2, .*: cannot find the others without MASTER_ADDR .* with torchrun"
    assert_refused(fit, tmp_path, 1, expected)


def test_a_stop_writes_a_checkpoint_and_the_command_continues(fit, monkeypatch) -> None:
    """The signal comes with the report of step 10, and is answered there."""
    from cpsae.training import member as module

    log = module.MetricsLog.append  # type: ignore[attr-defined]

    def append(self, row) -> None:
        log(self, row)
        if row["step"] == 10:
            interrupts._handle(signal.SIGTERM, None)

    interrupts._received.clear()
    with monkeypatch.context() as patch:
        patch.setattr(module.MetricsLog, "append", append)  # type: ignore[attr-defined]
        stopped = fit()
    interrupts._received.clear()
    assert stopped.code == 143
    last = stopped.err.splitlines()[-1]
    assert last == "stopped at 50%; run the same command again to continue"
    again = fit()
    assert again.code == 0 and "continuing after step 10" in again.err


def test_evaluate_repeats_the_held_out_metrics(fit, command, tmp_path) -> None:
    summary = json.loads(fit("--json").out)
    done = command("evaluate", tmp_path / "run", "--json")
    metrics = json.loads(done.out)
    assert metrics["explained_variance"] == pytest.approx(summary["explained_variance"])
    assert "explained_variance" in command("evaluate", tmp_path / "run").out


def test_evaluate_of_a_step(fit, command, tmp_path) -> None:
    fit("--set", "checkpoint_every=10")
    done = command("evaluate", tmp_path / "run", "--step", 10, "--json")
    content = json.loads((tmp_path / "run/evaluation-step-000010.json").read_text())
    assert content["step"] == 10
    assert json.loads(done.out).items() <= content.items()
    assert (
        "after step 10 (held-out rows)" in command("evaluate", tmp_path / "run", "--step", 10).out
    )
    text = r"run: has no step 15 to load; there are: 10, 20 "
    assert_refused(lambda: command("evaluate", tmp_path / "run", "--step", 15), tmp_path, 1, text)
    assert command("evaluate", tmp_path / "run", "--step", 0).code == 2


def test_more_steps(fit, tmp_path) -> None:
    constant = ("--set", "scale_schedule=false")
    fit(*constant)
    done = fit(*constant, "--steps", 30)
    assert done.code == 0
    said = "goes on from step 20 to 30; the learning rate goes on rising to 0.0003; it will be"
    assert f"{tmp_path / 'run'}: {said} what a run of that length is" in done.err
    assert json.loads((tmp_path / "run/summary.json").read_text())["steps"] == 30
    assert json.loads((tmp_path / "run/finished/step-000020/summary.json").read_text())


def test_more_steps_that_make_another_run_are_asked_for_twice(fit, command, tmp_path) -> None:
    fit("--fresh")
    text = r"run: a run of 40 steps would not have begun like this one: .*; give --stretch to"
    assert_refused(lambda: fit("--steps", 40), tmp_path, 1, text)
    assert fit("--steps", 40, "--stretch").code == 0
    assert fit("--steps", 40, "--stretch").code == 0
    recipe = tmp_path / "run/config.json"
    done = command("fit", "--recipe", recipe, "--out", tmp_path / "again")
    assert done.code == 0
    assert "was given more steps with --stretch; from its start on, another comes out" in done.err
    text = r"--stretch: is for more steps of a finished run; name that run with --out"
    new = ("--out", tmp_path / "new", "--stretch")
    assert_refused(lambda: fit(*new), tmp_path, 1, text)


def test_a_sweep_is_no_run(fit, command, tmp_path) -> None:
    fit("--sweep", "l1=0.1,0.2")
    text = r"run: is a sweep; give one of its runs \(l1=0.1, l1=0.2\)"
    assert_refused(lambda: command("info", tmp_path / "run"), tmp_path, 1, text)


def test_evaluate_of_no_run(command, tmp_path) -> None:
    assert_refused(lambda: command("evaluate", tmp_path / "x"), tmp_path, 1, r"x: no such run; gi")


def flip(file) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_runs_config_repeats_it_store_and_preset_included(fit, command, tmp_path) -> None:
    assert fit("--preset", "baseline").code == 0
    recipe = tmp_path / "run/config.json"
    assert command("fit", "--recipe", recipe, "--out", tmp_path / "again").code == 0
    for name in ("sae.safetensors", "config.json"):
        again = (tmp_path / "again" / name).read_bytes()
        assert again == (tmp_path / "run" / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--sweep", "l1"], 2, r"--sweep l1: expected KEY=V1,V2, like --sweep l1=0.02,0.04"),
        (
            ["--sweep", "l1=0.1"],
            2,
            r"--sweep l1=0.1: one value is no sweep; give more, or",
        ),
        (["--sweep", "stepz=1,2"], 2, r"--sweep: there is no setting 'stepz': did you mean steps"),
        (
            ["--sweep", "k=8,16"],
            2,
            r"--sweep: k is a setting of the kinds batchtopk, lca",
        ),
        (
            ["--sweep", "steps=8,16"],
            2,
            r"--sweep steps: all runs of a sweep share one feed",
        ),
        (["--sweep", "l1=0.1,-1"], 2, r"l1 = -1 \(from --sweep\): expected 0 or more"),
        (["--sweep", "l1=1,2", "--l1", "3"], 2, r"--sweep l1: is given by option too; leave one o"),
        (["--sweep", "l1=1,2", "--set", "l1=3"], 2, r"--sweep l1: is given by --set too; leave"),
        (["--sweep", f"seed={','.join(map(str, range(300)))}"], 2, r"300 runs are more than 256"),
        (["--preset", "topk", "--l1", "0.1"], 2, r"option: l1 is a setting of the kinds competiti"),
        (["--set", "kind=relu", "--set", "k=3"], 2, r"--set: k is a setting of the kinds batchtop"),
        (["--out", "s3://bucket/run"], 1, r"run folder s3://bucket/run: expected a local folder"),
        (
            ["--store", "ftp://bucket/a.zarr"],
            1,
            r"store ftp://bucket/a.zarr: expected a local folder",
        ),
    ],
)
def test_bad_sweeps_kinds_and_places(fit, tmp_path, options, code, text) -> None:
    assert_refused(lambda: fit(*options), tmp_path, code, text)


def test_a_sweep_and_its_table(command, store, tmp_path) -> None:
    arguments = ("fit", "--store", store, "--out", tmp_path / "s", *TRAINED)
    sweep = ("--preset", "topk", "--sweep", "k=4,8", "--sweep", "seed=0,1")
    content = json.loads(command(*arguments, *sweep, "--json").out)
    assert content["keys"] == ["k", "seed"]
    folders = [member["folder"] for member in content["members"]]
    assert folders == ["k=4,seed=0", "k=4,seed=1", "k=8,seed=0", "k=8,seed=1"]
    assert all(member["summary"]["steps"] == 20 for member in content["members"])
    done = command(*arguments, *sweep)
    lines = done.err.splitlines()
    assert any(line.endswith("s is complete") for line in lines)
    assert lines[-1] == f"next: cpsae compare {tmp_path / 's'} --out frontier.svg"
    lines = [line.split() for line in done.out.splitlines() if line.strip()]
    assert lines[1][:2] == ["run", "explained_variance"]
    assert [line[0] for line in lines[2:]] == folders


def test_a_folder_of_stores_lists_what_is_in_it(command, store, tmp_path) -> None:
    (tmp_path / "many").mkdir()
    store.rename(tmp_path / "many/19.resid_post.zarr")
    text = r"many: is a folder of stores; name one of them: 19.resid_post.zarr"
    run = lambda: command("fit", "--store", tmp_path / "many")  # noqa: E731
    assert_refused(run, tmp_path, 1, text)


def test_a_recipe_whose_store_is_no_object_is_one_line(fit, tmp_path) -> None:
    recipe = tmp_path / "config.json"
    recipe.write_text('{"settings": {}, "preset": "paper", "store": "acts.zarr"}')
    text = r"recipe .*config.json: its \"store\" does not name a store; restore the file"
    assert_refused(lambda: fit("--recipe", recipe), tmp_path, 1, text)
