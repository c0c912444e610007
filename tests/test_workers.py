"""Which worker a process is, as the environment says, and what it says where that is nonsense."""

import os
import subprocess
import sys

import pytest

from cpsae.errors import SettingsError
from cpsae.workers import Worker

NAMES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_LOCALID",
)


@pytest.fixture
def environment(monkeypatch):
    """Sets these variables, and none other of a launcher."""

    def put(values: dict[str, str]) -> None:
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"RANK": "", "WORLD_SIZE": ""}, Worker()),
        ({"RANK": "", "WORLD_SIZE": "", "LOCAL_RANK": ""}, Worker()),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": ""}, Worker(1, 2, 0)),
        ({"SLURM_PROCID": "", "SLURM_STEP_NUM_TASKS": "4"}, Worker()),
        ({"RANK": "", "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}, Worker(3, 4, 0)),
        ({"SLURM_PROCID": "0"}, Worker()),
    ],
)
def test_an_empty_variable_is_none(environment, values, expected) -> None:
    environment(values)
    assert Worker.from_environment() == expected


WRONG = [
    ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2"),
    ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK=x"),
    ({"RANK": "1"}, "RANK=1"),
    ({"RANK": "0", "WORLD_SIZE": ""}, "RANK=0"),
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2"),
    ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1"),
    ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0"),
    ({"RANK": "0", "WORLD_SIZE": "2.0"}, "WORLD_SIZE=2.0"),
    ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "a"}, "LOCAL_RANK=a"),
    ({"SLURM_PROCID": "4", "SLURM_STEP_NUM_TASKS": "4"}, "SLURM_PROCID=4"),
    ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4(x2)"}, "SLURM_STEP_NUM_TASKS=4(x2)"),
]


@pytest.mark.parametrize(("values", "named"), WRONG)
def test_nonsense_is_named(environment, values, named) -> None:
    environment(values)
    with pytest.raises(SettingsError) as raised:
        Worker.from_environment()
    assert str(raised.value).startswith(f"{named}: ") and "unset" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("command", ["extract", "fit"])
@pytest.mark.parametrize(("values", "named"), [WRONG[0], WRONG[1], WRONG[2], WRONG[9]])
def test_nonsense_is_a_wrong_command_line(tmp_path, command, values, named) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-m", "cpsae", command],
        env={**clean, **values},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {named}: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_worker_says_who_it_is(environment) -> None:
    environment({"RANK": "1", "WORLD_SIZE": "2"})
    told = str(Worker.from_environment())
    assert told == "worker 1 of 2, counted from 0 (by RANK and WORLD_SIZE)"
    environment({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8"})
    told = str(Worker.from_environment())
    assert told == "worker 5 of 8, counted from 0 (by SLURM_PROCID and SLURM_STEP_NUM_TASKS)"
    assert str(Worker(1, 3)) == "worker 1 of 3, counted from 0"
