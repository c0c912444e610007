"""What trackers hold of runs, read from their files: {run: {step: {tag: value}}}."""

import json
import sqlite3
import struct
from collections import defaultdict
from pathlib import Path

BLOCK = 32768


class Twice(AssertionError):
    """A figure that is there two times."""


def _add(found, run, step, tag, value) -> None:
    if tag in found[run][step]:
        raise Twice(f"{run}: {tag} at step {step}")
    found[run][step][tag] = value


def _empty():
    return defaultdict(lambda: defaultdict(dict))


def of_tensorboard(folder: Path):
    """As TensorBoard itself reads a folder of runs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = _empty()
    for events in sorted(folder.rglob("tensorboard")):
        read = EventAccumulator(str(events), size_guidance={"scalars": 0})
        read.Reload()
        for tag in read.Tags()["scalars"]:
            for event in read.Scalars(tag):
                _add(found, events.parent.name, event.step, tag, event.value)
    return found


def of_trackio(folder: Path, project: str = "cpsae"):
    """As its database holds them, and the configurations."""
    found = _empty()
    with sqlite3.connect(folder / f"{project}.db") as database:
        for run, step, metrics in database.execute("select run_name, step, metrics from metrics"):
            for tag, value in json.loads(metrics).items():
                _add(found, run, step, tag, value)
        configs = dict(database.execute("select run_name, config from configs"))
    return found, {run: json.loads(text) for run, text in configs.items()}


def of_wandb(folder: Path):
    """As offline folders hold them, in LevelDB's log format; ids, names, groups and so on too."""
    from wandb.proto.wandb_internal_pb2 import Record

    found, abouts = _empty(), {}
    for file in sorted(folder.glob("offline-run-*/*.wandb")):
        run = ""
        for content in _records(file.read_bytes()):
            record = Record.FromString(content)
            if record.HasField("run"):
                run = record.run.run_id
                config = {
                    item.key: json.loads(item.value_json) for item in record.run.config.update
                }
                abouts[run] = (record.run, config)
            if record.HasField("history"):
                values = {
                    "".join(item.nested_key) or item.key: json.loads(item.value_json)
                    for item in record.history.item
                }
                for tag, value in values.items():
                    if not tag.startswith("_"):
                        _add(found, run, values["_step"], tag, value)
    return found, abouts


def _records(content: bytes):
    at, parts = 7, []
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        parts.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []
