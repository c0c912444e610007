"""Weights and a JSON that a few lines of torch can use: docs/export-format.md is the normative
description."""

from pathlib import Path

from cpsae.errors import SourceError
from cpsae.interop.exported import Files
from cpsae.interop.folded import Folded, as_bytes, fold
from cpsae.interop.origin import Origin
from cpsae.interop.published import KINDS, Published, checked, read_cfg, read_tensors, whole
from cpsae.json_files import as_json_bytes
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.normalization import PER_ROW, Normalizer

FORMAT = "cpsae-autoencoder"
FORMAT_VERSION = 1
WEIGHTS = "autoencoder.safetensors"
DESCRIPTION = "autoencoder.json"
FILES = ((DESCRIPTION, WEIGHTS),)
_MORE = {"jumprelu": ("b_enc", "threshold"), "gated": ("b_gate", "b_mag", "r_mag")}


def export(sae: SparseAutoencoder, origin: Origin) -> Files:
    """Raises ExportError where the kind says no form."""
    folded = fold(sae)
    about = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "form": folded.form,
        "d_in": folded.d,
        "n_latents": folded.n,
        "rows": folded.rows,
        "latent_scale": folded.latent_scale,
        **folded.numbers,
        "origin": {
            "kind": folded.kind,
            "model": origin.model,
            "layer": origin.layer,
            "point": origin.point,
            "hook_name": origin.hook_name,
            "context_size": origin.context_size,
            "first_position": origin.first_position,
            "prepend_bos": origin.prepend_bos,
            "dataset": origin.dataset,
            **origin.as_json(),
        },
    }
    return Files(
        contents={WEIGHTS: as_bytes(folded.tensors), DESCRIPTION: as_json_bytes(about)},
        what=folded.form,
        d=folded.d,
        n=folded.n,
        latent_scale=folded.latent_scale,
        load='safetensors.torch.load_file("{folder}/' + WEIGHTS + '")',
    )


def read(folder: Path, told: Origin, scaling_factor: float | None) -> Published:
    """Raises SourceError for another version, and for a form whose kind needs what is not told."""
    if scaling_factor is not None:
        raise SourceError(f"{folder}: says itself how rows are scaled; leave --scaling-factor out")
    path, weights = folder / DESCRIPTION, folder / WEIGHTS
    about = read_cfg(path, "`cpsae export --to safetensors`")
    if (about.get("format"), about.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise SourceError(f"{path}: is not {FORMAT}, version {FORMAT_VERSION}")
    form = next((name for name in KINDS if name == about.get("form")), None)
    rows = str(about.get("rows"))
    if form is None or rows not in (*PER_ROW, "none"):
        raise SourceError(
            f"{path}: form {about.get('form')} of rows {rows}: is taken from the run that it was "
            f"exported from alone; of forms {', '.join(KINDS)} are converted"
        )
    d, n = whole(path, about, "d_in"), whole(path, about, "n_latents")
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d, n), "W_dec": (n, d), "b_dec": (d,)}
    shapes |= dict.fromkeys(_MORE.get(form, ("b_enc",)), (n,))
    numbers = {"k": whole(path, about, "k", lambda k: k <= n)} if form == "topk" else {}
    told_by_run = about.get("origin")
    known = told_by_run if isinstance(told_by_run, dict) else {}
    return Published(
        format="safetensors",
        what=form,
        folded=Folded(
            "", form, rows, checked(weights, read_tensors(weights), shapes, form), numbers, 1.0
        ),
        normalizer=Normalizer(rows),
        origin=Origin.told(**known).after(told),
        files=(path, weights),
    )
