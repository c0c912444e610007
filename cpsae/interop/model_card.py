"""README.md of an exported folder: what it is, what it is worth, how to load it; with the front
matter that the hub reads."""

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cpsae
from cpsae.hub import is_path
from cpsae.interop.exported import Files, on_disk
from cpsae.interop.hub import HubPlace
from cpsae.interop.origin import Origin
from cpsae.json_files import object_at

CARD = "README.md"
_TAGS = ["sparse-autoencoder", "mechanistic-interpretability", "cpsae"]
_LIBRARIES = {"sae-lens": "saelens", "saebench": "saelens", "safetensors": "cpsae"}
"""As the hub calls them, where that is not the target's name."""
_MODULES = {
    "sae-lens": "sae_lens",
    "saebench": "sae_lens",
    "dictionary-learning": "dictionary_learning.utils",
    "sparsify": "sparsify",
    "safetensors": "safetensors.torch",
}
_CONVERTED = ("relu", "standard", "topk", "jumprelu", "gated")
"""What `cpsae convert` makes a run of; of dictionary_learning's, no pickle is opened."""
_METRICS = {
    "explained_variance": "1 - squared error over variance, of all rows together",
    "l0": "mean number of latents that are not 0",
    "mse": "squared error, mean over rows and dimensions",
    "cosine": "mean cosine between a row and its reconstruction",
    "relative_bias": "size of reconstructions; 1 is without shrinkage",
    "dead": "share of latents that no row fires",
    "dense": "share of latents that over a tenth of all rows fire",
    "ce_loss_score": "cross-entropy: 1 as with the rows themselves, 0 as with zeros",
    "kl_score": "the same of the divergence from the model's own predictions (KL)",
    "saebench/explained_variance": "as SAEBench's core evaluation defines it",
    "saebench/ce_loss_score": "as SAEBench's core evaluation defines it",
    "loss": "what was minimised",
}
"""Those of a run's files that a card states, in this order."""


@dataclass(frozen=True)
class Figures:
    """What is known of an autoencoder's worth."""

    of: str
    """Which rows, and who measured: the end of `Measured on …`."""
    values: Mapping[str, Any]
    """Under the names of evaluation.json, with their intervals."""


def model_card(
    config: Mapping[str, Any],
    origin: Origin,
    files: Files,
    to: str,
    figures: Figures,
    place: HubPlace | None,
) -> bytes:
    """README.md. config: the run's config.json; to: the format; place: where on the hub it goes, if
    it does."""
    name = place.repo if place else f"{_kind(config)} of {origin.model or 'activations'}"
    lines = [
        f"# {_text(name)}",
        "",
        f"{_made(config)}: {files.d:,} dimensions, {files.n:,} latents.",
        "",
        "## Trained on",
        "",
        *_table(("", ""), _trained_on(config, origin)),
        "",
        "## Metrics",
        "",
        f"Measured on {figures.of}.",
        "",
        *_table(("metric", "value", "95 % interval", "meaning"), _metrics(figures.values)),
        "",
        "## Loading",
        "",
        *_loading(files, to, place),
    ]
    return ("---\n" + _front_matter(config, origin, to) + "---\n" + "\n".join(lines)).encode()


def _kind(config: Mapping[str, Any]) -> str:
    return str(object_at(config, "settings").get("kind", "autoencoder"))


def _made(config: Mapping[str, Any]) -> str:
    what = f"A sparse autoencoder ({_text(_kind(config))}) of a language model's activations"
    if "source" in config:
        return f"{what}, trained by another program and converted by cpsae {cpsae.__version__}"
    return f"{what}, trained with cpsae {object_at(config, 'software').get('cpsae', '')}".rstrip()


def _front_matter(config: Mapping[str, Any], origin: Origin, to: str) -> str:
    from huggingface_hub import ModelCardData

    dataset = _hub_name(config, "dataset", origin.dataset)
    data = ModelCardData(
        library_name=_LIBRARIES.get(to, to),
        tags=_TAGS,
        base_model=_hub_name(config, "model", None if origin.is_local else origin.model),
        datasets=[dataset] if dataset else None,
    )
    return str(data.to_yaml()) + "\n"


def _hub_name(config: Mapping[str, Any], what: str, given: str | None) -> str | None:
    """Of model or text; None where it is not one that the hub can have."""
    recorded = object_at(object_at(object_at(config, "store"), "manifest"), what).get("id")
    for name in (recorded, given):
        if isinstance(name, str) and "/" in name and not is_path(name):
            return name
    return None


def _trained_on(config: Mapping[str, Any], origin: Origin) -> Iterator[tuple[str, str]]:
    settings = object_at(config, "settings")
    schedule = object_at(object_at(config, "facts"), "schedule")
    at = f" at revision {origin.model_revision}" if origin.model_revision else ""
    steps = origin.step or schedule.get("steps")
    known = {
        "model": origin.model and f"{origin.model}{at}",
        "place": origin.hook_name,
        "computed in": origin.model_dtype,
        "context": origin.context_size and _context(origin),
        "text": origin.dataset and _dataset(origin),
        "training": steps and f"{steps:,} steps of {settings.get('batch_size', 0):,} rows",
        "preset": config.get("preset"),
        "normalisation of rows": settings.get("normalize"),
        "seed": settings.get("seed"),
        "store": origin.store_identity,
    }
    for name, value in known.items():
        if value is not None:
            yield name, _text(value)


def _context(origin: Origin) -> str:
    text = f"{origin.context_size} tokens"
    text += ", BOS in front" if origin.prepend_bos else ""
    return text + (", the first position left out" if origin.first_position else "")


def _dataset(origin: Origin) -> str:
    parts = [origin.dataset, origin.dataset_split and f"split {origin.dataset_split}"]
    parts += [origin.dataset_revision and f"revision {origin.dataset_revision}"]
    return ", ".join(part for part in parts if part)


def _metrics(values: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, meaning in _METRICS.items():
        value, ends = values.get(name), values.get(f"{name}_ci")
        if isinstance(value, int | float):
            interval = f"{ends[0]:.4g} to {ends[1]:.4g}" if isinstance(ends, list) else ""
            yield f"`{name}`", f"{value:.4g}", interval, meaning


def _loading(files: Files, to: str, place: HubPlace | None) -> Iterator[str]:
    scale = f"{files.latent_scale:.6g}"
    yield (
        "It takes raw activations and gives raw reconstructions; any normalisation is in it. "
        f"Latents are {scale} times those of the run that it was exported from."
    )
    yield from ("", "```python")
    if place is None:
        yield 'folder = "."  # where this file lies'
    else:
        yield "from huggingface_hub import snapshot_download"
        yield ""
        yield f"folder = {place.download}"
    *before, load = files.load.split("; ")
    yield from ("", f"import {_MODULES[to]}", *before)
    load = on_disk(load, "folder")
    yield load if " = " in load else f"sae = {load}"
    yield "```"
    if files.what in _CONVERTED and to != "dictionary-learning":
        yield from (
            "",
            "In cpsae, `cpsae convert FOLDER --out RUN` makes a run of that folder:",
            "",
        )
        yield from ("```python", "import cpsae", "", 'sae = cpsae.load("RUN")', "```")
    yield ""


def _table(heading: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    lines = [heading, ("---",) * len(heading), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _text(value: Any) -> str:
    """On one line of a table, as text: names come from files and may hold anything."""
    return html.escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")
