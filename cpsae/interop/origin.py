"""Where the rows of a run are from, as its config.json says, for other programs' metadata."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import cpsae
from cpsae.errors import ExportError


@dataclass(frozen=True)
class Origin:
    """None where it is not known, as of a store that was made of arrays. Of what lay on the machine
    of the extraction, the last part of its path: no other program finds it by the whole."""

    model: str | None
    model_revision: str | None
    model_dtype: str | None
    layer: int | None
    point: str | None
    context_size: int | None
    first_position: int | None
    prepend_bos: bool | None
    dataset: str | None
    dataset_revision: str | None
    dataset_split: str | None
    store_identity: str | None
    preset: str | None
    step: int | None
    """Where it is not the finished run's."""
    median_norm: float | None
    """Of raw rows."""
    is_local: bool = False
    """Whether the model lay on that machine."""

    @classmethod
    def of_run(
        cls, config: Mapping[str, Any], model: str | None = None, step: int | None = None
    ) -> "Origin":
        """config: a run's config.json; model: the model's name, where the target knows it by
        another one."""
        store = _group(config, "store")
        manifest = _group(store, "manifest")
        hook, contexts = _group(manifest, "hook"), _group(manifest, "contexts")
        language_model, dataset = _group(manifest, "model"), _group(manifest, "dataset")
        tokenizer = _group(manifest, "tokenizer")
        return cls(
            model=model or _last_part(language_model.get("id")),
            model_revision=language_model.get("revision"),
            model_dtype=language_model.get("dtype"),
            layer=hook.get("layer"),
            point=hook.get("name", "resid_post") if hook else None,
            context_size=contexts.get("tokens"),
            first_position=contexts.get("first_position"),
            prepend_bos=tokenizer.get("bos") is not None if tokenizer else None,
            dataset=_last_part(dataset.get("id")),
            dataset_revision=dataset.get("revision"),
            dataset_split=dataset.get("split"),
            store_identity=store.get("identity"),
            preset=config.get("preset"),
            step=step,
            median_norm=_median_norm(config),
            is_local=model is None and _is_path(language_model.get("id")),
        )

    @property
    def hook_name(self) -> str | None:
        """As TransformerLens calls the place: blocks.19.hook_resid_post."""
        return None if self.layer is None else f"blocks.{self.layer}.hook_{self.point}"

    def as_json(self) -> dict[str, Any]:
        """What of it no other program has a key for."""
        return {
            "cpsae_version": cpsae.__version__,
            "preset": self.preset,
            "step": self.step,
            "store_identity": self.store_identity,
            "model_revision": self.model_revision,
            "model_dtype": self.model_dtype,
            "dataset_revision": self.dataset_revision,
            "dataset_split": self.dataset_split,
        }

    def refuse_unknown(self, target: str) -> None:
        """Raises ExportError where model or place is not known."""
        if self.model is None or self.hook_name is None:
            raise ExportError(
                f"the run's store names no {'model' if self.model is None else 'layer'}: {target} "
                "runs the language model itself, so it has no use for this run; take another --to"
            )


def _group(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}


def _is_path(name: str | None) -> bool:
    """Whether this is no name of the hub, which has one slash at most."""
    if name is None:
        return False
    path = PurePath(name)
    return path.is_absolute() or name[0] in ".~" or len(path.parts) > 2 or path.suffix == ".gguf"


def _last_part(name: str | None) -> str | None:
    return PurePath(name).name if name is not None and _is_path(name) else name


def _median_norm(config: Mapping[str, Any]) -> float | None:
    """From the bound of norms, which is `max_norm` times that."""
    bound, times = _group(config, "facts").get("norm_bound"), _group(config, "settings")
    try:
        norm = float(bound) / float(times["max_norm"])  # type: ignore[arg-type]
    except (TypeError, ValueError, KeyError, ZeroDivisionError):
        return None
    return norm if math.isfinite(norm) else None
