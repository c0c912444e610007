"""What a run's config.json records, for whoever looks at runs of all ages and origins: of a fit, of
one of cpsae 0.1, or converted from what another program trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpsae.config.resolve import flatten
from cpsae.errors import RunError
from cpsae.store import Manifest
from cpsae.training.recipes import known_to_0_1, with_newer
from cpsae.training.settings import FitSettings

_MAX_NORM = float(FitSettings.model_fields["max_norm"].default)


@dataclass(frozen=True)
class Recorded:
    """None where it is not known: of a converted run all that its training was."""

    preset: str
    """Of a converted run the format that it came in."""
    settings: dict[str, Any]
    """By dotted keys, with those that are newer than the run at their defaults; of a converted run
    the few that say what it is."""
    kind: str
    d: int
    n: int
    steps: int | None
    store_path: str | None
    store_identity: str | None
    has_model: bool
    """Whether its store names the language model that its rows are of."""
    max_norm: float
    source: Mapping[str, Any] | None
    """Where a converted run is from."""

    @classmethod
    def of(cls, config: Mapping[str, Any], path: Path) -> "Recorded":
        """config: of the run at `path`. Raises RunError where it is of no run."""
        try:
            return cls._converted(config) if "source" in config else cls._trained(config)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise RunError(f"{path}: is no run; its config.json is not of `cpsae fit`") from None

    def other_place(self, manifest: Manifest) -> str | None:
        """Of a converted run: what is wrong with a store whose rows are not of the place that the
        run says it is of; None where both are the same, or one says nothing."""
        hook, origin = manifest.hook, (self.source or {}).get("origin", {})
        layer, name = origin.get("layer"), origin.get("point") or origin.get("place")
        if hook is None or name is None or (layer, name) == (hook.layer, hook.name):
            return None
        where = name if layer is None else f"{name} of block {layer}"
        return (
            f"is of {where}, and the store's rows are of {hook.name} of block {hook.layer}: its "
            "figures say little"
        )

    @classmethod
    def _trained(cls, config: Mapping[str, Any]) -> "Recorded":
        facts, asked, store = "facts" in config, config["settings"], config["store"]
        settings = flatten(with_newer(asked if facts else known_to_0_1(asked)))
        schedule = config["facts"]["schedule"] if facts else config["schedule"]
        d = int(store["manifest"]["d"])
        return cls(
            preset=str(config["preset"]),
            settings=settings,
            kind=str(settings["kind"]),
            d=d,
            n=int(settings["n_latents"] or d),
            steps=int(schedule["steps"]),
            store_path=str(store["path"]),
            store_identity=str(store["identity"]),
            has_model=store["manifest"].get("model") is not None,
            max_norm=float(settings.get("max_norm", _MAX_NORM)),
            source=None,
        )

    @classmethod
    def _converted(cls, config: Mapping[str, Any]) -> "Recorded":
        settings, store = config["settings"], config["store"] or {}
        return cls(
            preset=str(config["preset"]),
            settings=dict(settings),
            kind=str(settings["kind"]),
            d=int(config["source"]["d"]),
            n=int(settings["n_latents"]),
            steps=None,
            store_path=store.get("path"),
            store_identity=store.get("identity"),
            has_model=store.get("model") is not None,
            max_norm=_MAX_NORM,
            source=config["source"],
        )
