"""Run folders with nothing in them but the JSON files that a comparison reads."""

import json
from pathlib import Path
from typing import Any

STORE = "a" * 64


def write_run(
    folder: Path,
    preset: str = "topk",
    kind: str | None = None,
    summary: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
    steps: int = 1000,
    store: str = STORE,
    model: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """A run of n = d = 32 whose store is of a language model where `model` is given; without a
    `summary` an unfinished one."""
    config = {
        "preset": preset,
        "settings": {
            "kind": kind or preset,
            "n_latents": None,
            "steps": None,
            "lr": 3e-4,
            "seed": 0,
            "order_seed": 0,
            "device": "auto",
            "log_every": 10,
            "checkpoint_every": 500,
            "keep_checkpoints": 2,
            "temperature": {"base": 0.1},
            **settings,
        },
        "facts": {"schedule": {"steps": steps}},
        "store": {"path": "/acts.zarr", "identity": store, "manifest": {"d": 32, "model": model}},
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if summary is not None:
        done = {"steps": steps, "rows": steps * 64, **summary}
        (folder / "summary.json").write_text(json.dumps(done))
        measured = {**summary, "density": {}, "store_identity": store, **(evaluation or {})}
        (folder / "evaluation.json").write_text(json.dumps(measured))
    return folder
