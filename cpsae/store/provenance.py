"""Where the rows of a store come from, as an autoencoder's sae.json tells other tools."""

from typing import Any

from cpsae.store.layout import Manifest


def provenance(manifest: Manifest, identity: str) -> dict[str, Any]:
    """Flat: what is known of hook, model, contexts and text, and the store's identity."""
    known: dict[str, Any] = {"store_identity": identity}
    if manifest.hook:
        known |= manifest.hook.model_dump()
    if manifest.model:
        known |= {"model": manifest.model.id, "model_revision": manifest.model.revision}
    if manifest.contexts:
        known |= {
            "tokens": manifest.contexts.tokens,
            "first_position_dropped": bool(manifest.contexts.first_position),
        }
    if manifest.dataset:
        known["dataset"] = manifest.dataset.id
    return known
