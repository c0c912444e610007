"""Every parser against files that a stranger, a disk or a cut download may have left.

    python pipelines/fuzz.py [--inputs 10000] [--only NAME,NAME] [--seed 0] [--out findings.json]

Each input is a good file with one to three changes (fuzz_mutations.py), read as its owner would
(fuzz_targets.py). It may be taken or refused with a CpsaeError in one line. A finding is anything
else: another exception, a signal, 20 seconds, 3 GB more, a file written outside the folder at hand.
Runs on Linux, in child processes.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import torch
from fuzz_mutations import mutated
from fuzz_samples import make_samples
from fuzz_targets import TARGETS

from cpsae.errors import CpsaeError

SECONDS, MEMORY = 20, 3 * 2**30
IN_A_CHILD = 100


def main() -> None:
    """Prints a line for each target; exits 1 where there are findings."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="of each target")
    parser.add_argument("--only", default=",".join(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    findings = fuzz(args.only.split(","), args.inputs, args.seed)
    if args.out:
        args.out.write_text(json.dumps(findings, indent=2) + "\n")
    sys.exit(1 if findings else 0)


def fuzz(names: list[str], inputs: int, seed: int) -> list[dict[str, object]]:
    """All findings: target, file, number of the input, what happened, once each."""
    torch.set_num_threads(1)
    found: dict[tuple[str, str], dict[str, object]] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        samples = Path(place) / "samples"
        make_samples(samples)
        for name in names:
            counts: Counter[str] = Counter()
            _check(name, samples)
            for first in range(0, inputs, IN_A_CHILD):
                numbers = range(first, min(first + IN_A_CHILD, inputs))
                for number, file, what in _in_a_child(name, numbers, seed, samples):
                    sort = what if what in ("taken", "refused") else "finding"
                    counts[sort] += 1
                    if sort == "finding":
                        fresh = {"target": name, "file": file, "input": number, "what": what}
                        found.setdefault((name, what[:80]), fresh)
            print(f"{name}: {dict(counts)}", flush=True)
    for entry in found.values():
        print(json.dumps(entry, indent=2), flush=True)
    return list(found.values())


def _check(name: str, samples: Path) -> None:
    """What is changed is read as it is, or a refusal says nothing about the change."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        TARGETS[name].read(Path(shutil.copytree(samples, Path(place) / "work")))


def _in_a_child(name: str, numbers: range, seed: int, samples: Path) -> list[tuple[int, str, str]]:
    """What became of these inputs; where one killed the child, another goes on behind it."""
    results: list[tuple[int, str, str]] = []
    while numbers:
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=samples.parent) as place:
            log = Path(place) / "log.jsonl"
            child = os.fork()
            if child == 0:
                _child(name, numbers, seed, samples, Path(place), log)
            _, status = os.waitpid(child, 0)
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            results += [(line[0], line[1], line[2]) for line in lines if len(line) == 3]
            if os.waitstatus_to_exitcode(status) == 0:
                break
            number, file = lines[-1][:2]
            results.append(
                (number, file, f"ended the process: {os.waitstatus_to_exitcode(status)}")
            )
            numbers = range(number + 1, numbers.stop)
    return results


def _child(name: str, numbers: range, seed: int, samples: Path, place: Path, log: Path) -> None:
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(devnull, stream)
    here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (here + MEMORY, here + MEMORY))
    os.chdir(place)
    with log.open("a", buffering=1) as out:
        for number in numbers:
            chance = random.Random(f"{seed} {name} {number}")
            files = sorted(f for f in samples.glob(TARGETS[name].files) if f.is_file())
            file = chance.choice(files).relative_to(samples)
            out.write(json.dumps([number, str(file)]) + "\n")
            what = _outcome(name, file, chance, samples, place)
            out.write(json.dumps([number, str(file), what]) + "\n")
    os._exit(0)


def _outcome(name: str, file: Path, chance: random.Random, samples: Path, place: Path) -> str:
    work = place / "work"
    shutil.rmtree(work, ignore_errors=True)
    for folder in TARGETS[name].needed:
        shutil.copytree(samples / folder, work / folder, copy_function=os.link)
    changed = work / file
    content = mutated(changed.read_bytes(), file.name, chance)
    changed.unlink()  # a link to the sample
    changed.write_bytes(content)
    signal.alarm(SECONDS)
    try:
        TARGETS[name].read(work)
        what = "taken"
    except CpsaeError as error:
        what = "refused" if "\n" not in str(error) else f"a refusal of several lines: {error!r}"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = [f for f in traceback.extract_tb(error.__traceback__) if "/cpsae/" in f.filename]
        at = ours[-1] if ours else last
        where = f"{Path(at.filename).name}:{at.lineno}"
        what = f"{type(error).__name__} at {where}: {str(error)[:200]}".replace("\n", " ")
    signal.alarm(0)
    outside = {path.name for path in place.iterdir()} - {"work", "log.jsonl"}
    return f"wrote outside: {sorted(outside)}" if outside else what


if __name__ == "__main__":
    main()
