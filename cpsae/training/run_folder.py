"""The run folder: the path of every file in it, its configuration, and its log of metrics."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from cpsae.config import FitSettings
from cpsae.config.resolve import differences
from cpsae.errors import DifferentSettingsError, RunError
from cpsae.store import Store
from cpsae.store.commit import write_atomic

# Settings that change neither the weights nor the files that are compared between runs.
_FREE = ("device", "checkpoint_every", "keep_checkpoints")


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.evaluation = self.path / "evaluation.json"
        self.sae = self.path / "sae.safetensors"
        self.checkpoints = self.path / "checkpoints"

    @property
    def begun(self) -> bool:
        """Whether a fit was begun here."""
        return self.config.exists()

    @property
    def complete(self) -> bool:
        """Whether it was finished: the summary is written last."""
        return self.summary.exists()

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Record what the run is."""
        write_json(self.config, config)

    def read_config(self) -> dict[str, Any]:
        """Raises RunError where this is no run or its config.json is broken."""
        if not self.path.is_dir():
            raise RunError(f"{self.path}: no such run; give a folder that `cpsae fit` wrote")
        return read_json(self.config)

    def refuse_other(self, settings: FitSettings, store: Store) -> None:
        """Raises DifferentSettingsError, listing each, where the run was begun otherwise."""
        config = self.read_config()
        begun = _without_free(config.get("settings", {}))
        different = differences(begun, _without_free(settings.model_dump(mode="json")))
        if config.get("store", {}).get("identity") != store.identity:
            different.append(f"store: not the one at {config.get('store', {}).get('path')}")
        if different:
            raise DifferentSettingsError(
                f"{self.path}: was begun with other settings ({'; '.join(different)}); "
                "give the same ones, another --out, or --fresh",
                different,
            )


class MetricsLog:
    """metrics.jsonl, open for appending after it was cut back to `step`."""

    def __init__(self, path: Path, step: int) -> None:
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step]
        write_atomic(path, "".join(kept).encode())
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def append(self, row: Mapping[str, float | int | None]) -> None:
        """Add one line; readers see it at once."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Make all lines durable: before a checkpoint that presumes them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def run_name(preset: str, settings: FitSettings, store: Store) -> str:
    """`<preset>-<8 hex of settings and store identity>`, the same for the same run."""
    asked = json.dumps(_without_free(settings.model_dump(mode="json")), sort_keys=True)
    digest = hashlib.sha256((asked + store.identity).encode()).hexdigest()
    return f"{preset}-{digest[:8]}"


def _without_free(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _FREE}


def write_json(path: Path, content: Any) -> None:
    """Indented JSON, keys sorted, committed atomically."""
    write_atomic(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Raises RunError where the file is missing or broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: missing; give a folder that `cpsae fit` wrote") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{path}: is not readable JSON ({error}); use --fresh") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected a JSON object; use --fresh")
    return content


def _whole_lines(path: Path) -> list[str]:
    """The lines of a log, without a last one that a kill cut short."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.endswith("}\n")]
