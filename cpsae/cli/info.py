"""`cpsae info`: what is in a store, a folder of stores, or a run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cpsae.cli.options import output_options, terminal_of

if TYPE_CHECKING:
    from cpsae.store import Manifest, Store
    from cpsae.store.bucket import Bucket
    from cpsae.store.layout import HookRecord
    from cpsae.training.recorded import Recorded

_LISTED = 5


@click.command(short_help="Say what is in a store or a run.")
@click.argument("path", metavar="STORE_OR_RUN")
@output_options
def command(path: str, **values: Any) -> None:
    """Say what is in a store (finished or not), in a folder of stores, or in a run folder.

    A damaged store is described as far as it can be; the exit code is then 1.
    """
    with terminal_of(values) as terminal:
        from cpsae.store import stores_in
        from cpsae.urls import is_url

        run = not is_url(path)
        if run and any((Path(path) / name).exists() for name in ("config.json", "sweep.json")):
            contents = {path: _run(Path(path))}
        else:
            contents = {str(p): _store(str(p)) for p in stores_in(path)} or {path: _store(path)}
        several = list(contents) != [path]
        content = {"kind": "stores", "stores": list(contents.values())} if several else None
        if not terminal.result(content or contents[path]):
            for name, described in contents.items():
                terminal.table(name, [(k, _listed(v)) for k, v in described.items() if v != ""])
        if any("damaged" in described for described in contents.values()):
            click.get_current_context().exit(1)


def _store(path: str) -> dict[str, Any]:
    from cpsae.errors import DamagedStoreError, StoreError
    from cpsae.store import open_store
    from cpsae.store.folders import find_bucket
    from cpsae.store.listing import Listing
    from cpsae.store.metadata import read_manifest

    bucket = find_bucket(path)
    manifest = read_manifest(bucket)
    listing = Listing(bucket, manifest.chunks())
    present = len(listing.present())
    content: dict[str, Any] = {
        "kind": "store",
        "store": path,
        "complete": manifest.complete,
        "chunks": len(listing.chunks),
        "chunks_present": present,
        "bytes": bucket.total_bytes(),
        "vectors": manifest.vectors,
        "evaluation_vectors": manifest.evaluation_vectors,
        "d": manifest.d,
        "store_dtype": manifest.store_dtype,
        **_origin(manifest),
    }
    try:
        content |= _files(bucket)
    except StoreError as error:
        content["damaged"] = str(error)
    if manifest.tokens_complete and present:
        try:
            content |= _norms(open_store(path, allow_partial=True))
        except DamagedStoreError as error:
            content["damaged"] = str(error).removeprefix(f"{path}: ")
    return content


def _origin(manifest: "Manifest") -> dict[str, Any]:
    """What the rows are of."""
    if not (manifest.model and manifest.hook and manifest.dataset and manifest.contexts):
        return {"description": manifest.description}
    return {
        "model": manifest.model.id,
        "architecture": manifest.model.architecture,
        "model_fingerprint": manifest.model.fingerprint[:16],
        "layer": manifest.hook.layer,
        "hook": _hook(manifest.hook),
        "dtype": manifest.model.dtype,
        "attention": manifest.model.attention,
        "dataset": manifest.dataset.id,
        "held_out_by": manifest.dataset.held_out,
        "tokens": manifest.contexts.tokens,
        "first_position_dropped": bool(manifest.contexts.first_position),
        "seed": manifest.seed,
    }


def _files(bucket: "Bucket") -> dict[str, Any]:
    """What was read of a corpus, and what was not. Raises StoreError where that is damaged."""
    from cpsae.store.origin import read_provenance

    known = read_provenance(bucket)
    corpus = known.corpus if known else None
    if corpus is None:
        return {}
    content = {"split": corpus.split, "configuration": corpus.configuration or ""}
    if not corpus.files:  # of the hub
        return content
    return content | {
        "files_read": [{"name": f.name, "as": corpus.formats[f.name]} for f in corpus.files],
        "files_left_out": [left.model_dump() for left in corpus.left_out],
    }


def _listed(value: Any) -> Any:
    """A list as people read it: the first of it, and how many more."""
    from cpsae.cli.terminal import shown

    if not isinstance(value, list):
        return value
    texts = [" (".join(e.values()) + ")" if isinstance(e, dict) else shown(e) for e in value]
    more = len(texts) - _LISTED
    return ", ".join(texts[:_LISTED]) + (f" and {more:,} more" if more > 0 else "")


def _hook(hook: "HookRecord") -> str:
    """The place in the model, in words."""
    return {
        "resid_pre": f"input of block {hook.layer} = hidden_states[{hook.layer}]",
        "attn_out": f"what attention adds to the residual stream in block {hook.layer}",
        "mlp_out": f"what the MLP adds to the residual stream in block {hook.layer}",
        "resid_post": f"output of block {hook.layer} = hidden_states[{hook.layer + 1}]",
    }[hook.name]


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
    from cpsae.training.at_step import steps_at_hand
    from cpsae.training.recorded import Recorded
    from cpsae.training.run_folder import RunFolder

    run = RunFolder(path)
    config = run.read_config()
    known = Recorded.of(config, path)
    content: dict[str, Any] = {"kind": "run", "complete": run.complete, "preset": known.preset}
    content["store"] = known.store_path or ""
    if known.source is None:
        content |= {"steps": known.steps, "last_step": _last_step(run.metrics)}
        content["steps_at_hand"] = steps_at_hand(run)
        if "facts" in config:
            content["skipped_share"] = config["facts"]["skipped_share"]
    else:
        content |= _converted(known)
    return content | (run.read_summary() if run.complete else {})


def _converted(known: "Recorded") -> dict[str, Any]:
    """What another program trained: where it is from."""
    source = known.source or {}
    origin = source.get("origin") or {}
    place = "" if origin.get("layer") is None else f"layer {origin['layer']}, {origin['point']}"
    return {
        "converted_from": f"{source.get('path')} ({known.preset}, {source.get('what')})",
        "sae_kind": known.kind,
        "model": origin.get("model") or "",
        "place": place or origin.get("place") or "",
        "d": known.d,
        "n_latents": known.n,
    }
