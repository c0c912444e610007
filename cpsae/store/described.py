"""What is in a store, in a few lines, for whoever prints it."""

from typing import TYPE_CHECKING

from cpsae.store.layout import Manifest

if TYPE_CHECKING:
    from cpsae.store.part import StorePart
    from cpsae.store.reader import Store


def described_store(store: "Store") -> str:
    """Where it is, what its rows are of, and how many there are."""
    lines = [f"Store {store.path}: {_origin(store.manifest)}"]
    for part in (store.training, store.evaluation):
        if part is not None:
            lines.append(f"  {part.name:<10}  {described_rows(part)}")
    return "\n".join(lines)


def described_rows(part: "StorePart") -> str:
    """Shape, type and size of the rows that are there."""
    size = part.vectors * part.d * part.dtype.itemsize
    text = f"{part.vectors:,} x {part.d} {part.dtype.name} ({_bytes(size)})"
    whole = part.part.vectors
    return text if part.vectors == whole else f"{text}, of {whole:,} rows"


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
