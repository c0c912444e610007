"""Where the rows of a run are from, as its config.json says, for other programs' metadata."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import cpsae
from cpsae.config.extraction import POINTS
from cpsae.errors import ExportError
from cpsae.hub import is_path, last_part
from cpsae.json_files import object_at


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
    place: str | None = None
    """The hook in the words of who published it, where it is none of our points."""

    @classmethod
    def of_run(
        cls, config: Mapping[str, Any], model: str | None = None, step: int | None = None
    ) -> "Origin":
        """config: a run's config.json; model: the model's name, where the target knows it by
        another one."""
        if "source" in config:
            return cls.of_converted(config, model)
        store = object_at(config, "store")
        manifest = object_at(store, "manifest")
        hook, contexts = object_at(manifest, "hook"), object_at(manifest, "contexts")
        language_model, dataset = object_at(manifest, "model"), object_at(manifest, "dataset")
        tokenizer = object_at(manifest, "tokenizer")
        return cls(
            model=model or last_part(language_model.get("id")),
            model_revision=language_model.get("revision"),
            model_dtype=language_model.get("dtype"),
            layer=hook.get("layer"),
            point=hook.get("name", "resid_post") if hook else None,
            context_size=contexts.get("tokens"),
            first_position=contexts.get("first_position"),
            prepend_bos=tokenizer.get("bos") is not None if tokenizer else None,
            dataset=last_part(dataset.get("id")),
            dataset_revision=dataset.get("revision"),
            dataset_split=dataset.get("split"),
            store_identity=store.get("identity"),
            preset=config.get("preset"),
            step=step,
            median_norm=_median_norm(config),
            is_local=model is None and is_path(language_model.get("id")),
        )

    @classmethod
    def of_converted(cls, config: Mapping[str, Any], model: str | None = None) -> "Origin":
        """Of what another program trained: as was known when it was converted."""
        told = object_at(object_at(config, "source"), "origin")
        known: dict[str, Any] = {field.name: told.get(field.name) for field in fields(cls)}
        local = model is None and bool(known["is_local"])
        known |= {"preset": config.get("preset"), "is_local": local}
        return cls(**{**known, "model": model or known["model"]})

    @classmethod
    def told(cls, **known: Any) -> "Origin":
        """Of what another program says of itself: what is not given is not known."""
        values: dict[str, Any] = dict.fromkeys(field.name for field in fields(cls))
        for key, value in known.items():  # from a file: of whatever type
            if key in values and isinstance(value, str | int | float):
                values[key] = value
        names = {key: str(values[key]) for key in ("model", "dataset") if values[key]}
        values |= {key: last_part(name) for key, name in names.items()}
        return cls(**{**values, "is_local": is_path(names.get("model"))})

    def after(self, told: "Origin") -> "Origin":
        """What `told` knows comes first."""
        known: dict[str, Any] = {
            key: value for key, value in vars(told).items() if value is not None
        }
        return replace(self, **{**known, "is_local": (told if told.model else self).is_local})

    @property
    def hook_name(self) -> str | None:
        """As TransformerLens calls the place: blocks.19.hook_resid_post."""
        if self.layer is None or self.point is None:
            return self.place
        return f"blocks.{self.layer}.hook_{self.point}"

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


def place_of(hook_name: object) -> dict[str, Any]:
    """Layer, point and place, as TransformerLens' name of a hook says them; `place` alone where it
    is no name of one of our points."""
    found = re.fullmatch(r"blocks\.(\d+)\.hook_(\w+)", str(hook_name))
    if found and found[2] in POINTS:
        return {"layer": int(found[1]), "point": found[2]}
    place = hook_name if isinstance(hook_name, str) else None
    return {"layer": None, "point": None, "place": place}


def _median_norm(config: Mapping[str, Any]) -> float | None:
    """From the bound of norms, which is `max_norm` times that."""
    bound, times = object_at(config, "facts").get("norm_bound"), object_at(config, "settings")
    try:
        norm = float(bound) / float(times["max_norm"])  # type: ignore[arg-type]
    except (TypeError, ValueError, KeyError, ZeroDivisionError):
        return None
    return norm if math.isfinite(norm) else None
