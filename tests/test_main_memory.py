"""How much memory is left, by what a made-up system says."""

import json
import subprocess
import sys

import pytest

from cpsae.memory import Room, main_memory

GB = 2**30
HUGE = 2**63 - 4096
"""What cgroup v1 writes where there is no limit."""


@pytest.fixture
def system(tmp_path):
    """system(files, limits) is what is free where these files are: under proc and cgroup."""

    def free(files: dict[str, object], limits: dict[str, int] | None = None) -> Room | None:
        for name, content in {"proc/meminfo": f"MemAvailable: {100 * 2**20} kB\n", **files}.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{content}\n")
        return main_memory(tmp_path / "proc", tmp_path / "cgroup", limits or {})

    return free


OWN = {"proc/self/cgroup": "0::/job/step", "cgroup/job/step/memory.current": 0}


def test_the_machine_alone(system, tmp_path) -> None:
    assert system({}) == Room(100 * GB)
    assert main_memory(tmp_path / "nothing", tmp_path / "nothing", {}) is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"job/step/memory.max": 4 * GB},
            Room(4 * GB, "memory.max of the control group /job/step"),
        ),
        (
            {"job/step/memory.max": 4 * GB, "job/step/memory.high": 3 * GB},
            Room(3 * GB, "memory.high of the control group /job/step"),
        ),
        (
            {"job/step/memory.max": 9 * GB, "job/memory.max": 5 * GB, "job/memory.current": GB},
            Room(4 * GB, "memory.max of the control group /job"),
        ),
        ({"memory.max": 2 * GB}, Room(2 * GB, "memory.max of the control group /")),
        (
            {
                "job/step/memory.max": 4 * GB,
                "job/step/memory.current": 3 * GB,
                "job/step/memory.stat": f"anon {GB}\ninactive_file {2 * GB}\nactive_file 7",
            },
            Room(3 * GB, "memory.max of the control group /job/step"),
        ),
        (
            {"job/step/memory.max": GB, "job/step/memory.current": 2 * GB},
            Room(0, "memory.max of the control group /job/step"),
        ),
        ({"job/step/memory.max": "max", "job/step/memory.high": "max"}, Room(100 * GB)),
    ],
)
def test_control_groups_of_version_2(system, files, expected) -> None:
    assert system({**OWN, **{f"cgroup/{name}": text for name, text in files.items()}}) == expected


def test_names_from_outside_a_container(system) -> None:
    limit = {"cgroup/memory.max": 2 * GB}
    for name in ("/", "/../..", "/docker/0123"):
        found = system({"proc/self/cgroup": f"0::{name}", **limit})
        assert found == Room(2 * GB, "memory.max of the control group /")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a/memory.limit_in_bytes": 3 * GB, "a/memory.usage_in_bytes": GB}, 2 * GB),
        (
            {
                "a/memory.limit_in_bytes": 3 * GB,
                "a/memory.usage_in_bytes": 2 * GB,
                "a/memory.stat": f"inactive_file 5\ntotal_inactive_file {GB}",
            },
            2 * GB,
        ),
        ({"a/memory.limit_in_bytes": HUGE, "memory.limit_in_bytes": 7 * GB}, 7 * GB),
        ({"a/memory.limit_in_bytes": HUGE, "memory.limit_in_bytes": HUGE}, 100 * GB),
    ],
)
def test_control_groups_of_version_1(system, files, expected) -> None:
    own = {"proc/self/cgroup": "5:cpu,cpuacct:/b\n4:memory:/a\n0::/"}
    found = system({**own, **{f"cgroup/memory/{name}": text for name, text in files.items()}})
    assert found.bytes == expected
    assert ("memory.limit_in_bytes" in found.limit) == (expected < 100 * GB)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"RLIMIT_AS": 5 * GB}, Room(3 * GB, "RLIMIT_AS of this process (ulimit -v)")),
        ({"RLIMIT_DATA": 5 * GB}, Room(4 * GB, "RLIMIT_DATA of this process (ulimit -d)")),
        (
            {"RLIMIT_AS": 5 * GB, "RLIMIT_DATA": 2 * GB},
            Room(1 * GB, "RLIMIT_DATA of this process (ulimit -d)"),
        ),
        ({"RLIMIT_AS": GB}, Room(0, "RLIMIT_AS of this process (ulimit -v)")),
    ],
)
def test_limits_of_the_process(system, limits, expected) -> None:
    status = f"VmPeak:\t999 kB\nVmSize:\t{2 * 2**20} kB\nVmData:\t{2**20} kB"
    assert system({"proc/self/status": status}, limits) == expected


LIMITED = """
import json, resource
from cpsae.memory import main_memory
resource.setrlimit(resource.{0}, ({1}, resource.getrlimit(resource.{0})[1]))
print(json.dumps(main_memory()))
"""


@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
@pytest.mark.skipif(sys.platform != "linux", reason="macOS sets no such limit")
def test_a_real_limit(name) -> None:
    code = LIMITED.format(name, 2**29)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = Room(*json.loads(done.stdout))
    assert found.limit.startswith(name) and 0 < found.bytes < 2**29
