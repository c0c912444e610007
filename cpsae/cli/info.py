"""`cpsae info`: what is in a store or a run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cpsae.cli.options import output_options, terminal_of

if TYPE_CHECKING:
    from cpsae.store import Store


@click.command(short_help="Say what is in a store or a run.")
@click.argument("path", metavar="STORE_OR_RUN")
@output_options
def command(path: str, **values: Any) -> None:
    """Say what is in a store (finished or not) or in a run folder."""
    with terminal_of(values) as terminal:
        content = _run(Path(path)) if (Path(path) / "config.json").exists() else _store(Path(path))
        if not terminal.result(content):
            terminal.table(path, [(key, value) for key, value in content.items() if value != ""])


def _store(path: Path) -> dict[str, Any]:
    from cpsae.store import open_store
    from cpsae.store.documents import read_manifest

    manifest = read_manifest(path)
    chunks = manifest.chunks()
    present = sum((path / chunk.key).exists() for chunk in chunks)
    content: dict[str, Any] = {
        "kind": "store",
        "complete": manifest.complete,
        "chunks": len(chunks),
        "chunks_present": present,
        "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        "vectors": manifest.vectors,
        "evaluation_vectors": manifest.evaluation_vectors,
        "d": manifest.d,
        "store_dtype": manifest.store_dtype,
    }
    if manifest.model and manifest.hook and manifest.dataset and manifest.contexts:
        content |= {
            "model": manifest.model.id,
            "architecture": manifest.model.architecture,
            "model_fingerprint": manifest.model.fingerprint[:16],
            "layer": manifest.hook.layer,
            "hook": f"output of block {manifest.hook.layer} = hidden_states"
            f"[{manifest.hook.layer + 1}]",
            "dtype": manifest.model.dtype,
            "attention": manifest.model.attention,
            "dataset": manifest.dataset.id,
            "held_out_by": manifest.dataset.held_out,
            "tokens": manifest.contexts.tokens,
            "first_position_dropped": bool(manifest.contexts.first_position),
            "seed": manifest.seed,
        }
    if manifest.tokens_complete and present:
        content |= _norms(open_store(path, allow_partial=True))
    return content


def _norms(store: "Store") -> dict[str, Any]:
    """What the statistics say: outliers wreck means, so they are worth a line of their own."""
    part = store.training
    if not part.chunks:
        return {}
    mean_norm = float((part.mean**2).sum() ** 0.5)
    return {
        "median_norm": part.median_norm,
        "largest_norm": part.largest_norm,
        "rows_over_10_medians": part.rows_over(10 * part.median_norm),
        "norm_of_mean": mean_norm,
        "root_mean_squared_norm": part.mean_squared_norm**0.5,
    }


def _last_step(metrics: Path) -> int:
    """Of a log whose last line may be half written at this moment."""
    text = metrics.read_text(encoding="utf-8") if metrics.exists() else ""
    lines = [line for line in text.splitlines() if line.endswith("}")]
    return int(json.loads(lines[-1])["step"]) if lines else 0


def _run(path: Path) -> dict[str, Any]:
    from cpsae.errors import RunError
    from cpsae.training.run_folder import RunFolder, read_json

    run = RunFolder(path)
    config = run.read_config()
    try:
        content: dict[str, Any] = {
            "kind": "run",
            "complete": run.complete,
            "preset": config["preset"],
            "store": config["store"]["path"],
            "steps": config["schedule"]["steps"],
            "last_step": _last_step(run.metrics),
        }
    except (KeyError, TypeError):
        raise RunError(f"{path}: is no run; its config.json is not of `cpsae fit`") from None
    return content | (read_json(run.summary) if run.complete else {})
