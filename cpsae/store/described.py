"""What is in a store, in a few lines, for whoever prints it."""

from collections.abc import Mapping

import numpy as np

from cpsae.store.layout import Manifest


def described_store(path: object, manifest: Manifest, parts: Mapping[str, str]) -> str:
    """Where it is, what its rows are of, and how many each part has, as `described_rows` says."""
    lines = [f"Store {path}: {_origin(manifest)}"]
    lines += [f"  {name:<10}  {rows}" for name, rows in parts.items()]
    return "\n".join(lines)


def described_rows(n_rows: int, d: int, dtype: np.dtype, planned: int) -> str:
    """Shape, type and size of the rows that are there, of those that are planned."""
    text = f"{n_rows:,} x {d} {dtype.name} ({_bytes(n_rows * d * dtype.itemsize)})"
    return text if n_rows == planned else f"{text}, of {planned:,} rows"


def _origin(manifest: Manifest) -> str:
    model, hook, contexts = manifest.model, manifest.hook, manifest.contexts
    texts = [
        model.id if model else (manifest.description or "rows of arrays"),
        f"layer {hook.layer} {hook.name}" if hook else "",
        manifest.dataset.id if manifest.dataset else "",
        f"contexts of {contexts.tokens} tokens" if contexts else "",
        "" if manifest.complete else "unfinished",
    ]
    return ", ".join(filter(None, texts))


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"
