"""Settings of stage 2: those of the feed, of progressive enabling, of training, and those that
belong to the kind alone. Outside (options, recipes, config.json) all of them are flat keys.

Where METHOD section 5 lists a reading of the paper, the field names it.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from pydantic import (
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from cpsae.config import Count, Device, Settings
from cpsae.errors import SettingsError
from cpsae.sae.births import BirthSettings
from cpsae.sae.kind import KindSettings
from cpsae.sae.kinds import kinds_with_setting, load_kind
from cpsae.sae.progressive import EnablingSettings

DEFAULT_KIND = "competitive"

Split = Literal["data", "features"]


class FeedSettings(Settings):
    """Which rows make a batch, and in which order."""

    batch_size: Count = Field(2048, ge=1)
    """Rows an update."""
    order_seed: int = Field(0, ge=0, lt=2**63)
    """Of the order of rows."""
    max_norm: float = Field(10.0, ge=0)
    """Rows over this many times the median norm are skipped; 0: none are."""
    window_chunks: Count = Field(8, ge=1)
    """Chunks that are mapped together and whose rows are shuffled together."""

    @field_validator("max_norm")
    @classmethod
    def _keeps_the_median(cls, value: float) -> float:
        if 0 < value < 1:
            raise ValueError("expected 0 (off) or 1 and more: less would leave out the median row")
        return value


class TrainSettings(Settings):
    """The autoencoder and its optimisation, whatever its kind."""

    # --- the autoencoder
    n_latents: Count | None = Field(None, ge=1)
    """n, the size of the dictionary; by default the store's d, as in the paper."""
    normalize: Literal["layer", "layer-variance", "unit", "sqrt-d", "none"] = "layer"
    """How rows are scaled before the encoder, and back after the decoder (reading 12)."""
    init: Literal["tied", "uniform", "data"] = "tied"
    """Initial weights (reading 20). data: features along rows of the store, not at random."""
    frozen: Literal["none", "decoder", "encoder"] = "none"
    """A matrix that keeps its initial values, as a control; biases and thresholds are trained."""
    center: bool = False
    """Let the encoder see x - b_dec; Eq. 1 as written does not. Folded into b_enc when saved."""
    mse_reduction: Literal["sum", "mean"] = "sum"
    """Squared error summed or averaged over d; always averaged over the batch (reading 13)."""

    # --- optimisation
    steps: Count | None = Field(None, ge=1)
    """Updates; by default one epoch, floor(vectors / batch_size)."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """adamw decays the two matrices; adam decays nothing (reading 2)."""
    lr: float = Field(3e-4, gt=0)
    lr_scaling: Literal["none", "width"] = "none"
    """width: `lr` is that of 16,384 features, and goes with 1 / sqrt(n) (Gao et al. 2024)."""
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: Count = Field(1000, ge=0)
    """Steps in which the learning rate rises linearly from 0."""
    lr_decay: float = Field(0.0, ge=0, le=1)
    """Last fraction of the run in which the learning rate falls linearly to 0 (reading 20)."""
    clip: float = Field(0.0, ge=0)
    """Largest norm of the whole gradient; 0: no clipping (reading 20)."""
    scale_schedule: bool = True
    """Shorten warm-up and annealing by steps / 4882 where the run is shorter than the paper's."""

    # --- the run
    seed: int = Field(0, ge=0, lt=2**63)
    """Of the initial weights."""
    device: Device = "auto"
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the matrix products; weights and sums are float32. auto: bfloat16 on a GPU."""
    split: Split = "data"
    """What several processes share: rows of each batch, or features of the dictionary."""
    log_every: Count = Field(10, ge=1)
    checkpoint_every: Count = Field(500, ge=1)
    """Steps between two checkpoints; rounded up to a multiple of log_every."""
    keep_checkpoints: Count = Field(2, ge=1)


class FitSettings(FeedSettings, EnablingSettings, BirthSettings, TrainSettings):
    """What `cpsae fit` is asked for; the defaults are the `paper` preset.

    `FitSettings(kind="topk", k=16, steps=1000)`: the kind's own settings are given beside the
    others and are found in `method`. Raises SettingsError where a value is wrong, for a kind that
    there is not, and for a setting of another kind.
    """

    inlined: ClassVar[tuple[str, ...]] = ("method",)
    kind: str = DEFAULT_KIND
    """The kind of SAE: a file of cpsae/sae/kinds, or an entry point `cpsae.kinds`."""
    method: SerializeAsAny[KindSettings]
    """The settings of the kind alone."""

    def __init__(self, **values: Any) -> None:  # a type checker cannot know a kind's own keys
        super().__init__(**values)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # as of Settings

    @model_validator(mode="before")
    @classmethod
    def _hand_the_kind_its_own(cls, values: Any) -> Any:
        if not isinstance(values, dict) or isinstance(values.get("method"), KindSettings):
            return values
        common = {key: value for key, value in values.items() if key in cls.model_fields}
        own = {key: value for key, value in values.items() if key not in common}
        kind = str(values.get("kind", DEFAULT_KIND))
        method = load_kind(kind).Settings
        for key in method.model_fields.keys() & cls.model_fields.keys():
            raise SettingsError(
                f"the kind '{kind}' has a setting {key}, as all kinds have: rename it"
            )
        for key in own.keys() - method.model_fields.keys():
            refuse_key_of_another_kind(key, kind)
        return {**common, "method": own}

    @field_validator("method", mode="wrap")
    @classmethod
    def _by_the_kinds_own_class(cls, value: Any, _handler: Any, info: ValidationInfo) -> Any:
        if isinstance(value, KindSettings):
            return value
        return load_kind(info.data.get("kind", DEFAULT_KIND)).Settings.model_validate(value)

    @model_validator(mode="after")
    def _each_can_apply(self) -> "FitSettings":
        if self.new_features == "residual" and self.growth == "none":
            raise SettingsError(
                "new_features = residual: with growth = none no feature is enabled late; take "
                "another growth, or new_features = initial"
            )
        if self.revive_every and self.frozen != "none":
            raise SettingsError(
                f"revive_every: would change the {self.frozen}, which is frozen; take 0, or frozen "
                "= none"
            )
        return self

    @model_serializer(mode="wrap")
    def _flat(self, serialize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        values = serialize(self)
        own: dict[str, Any] = values.pop("method")
        return values | own


def refuse_key_of_another_kind(key: str, kind: str, where: str = "") -> None:
    """Raises SettingsError where a (dotted) key belongs to other kinds, by their names."""
    owners = kinds_with_setting(key)
    if owners and kind not in owners:
        one = f"the kind{'s' if len(owners) > 1 else ''} {', '.join(owners)}"
        raise SettingsError(
            f"{where}{key} is a setting of {one}, not of {kind}; leave it out, or take another "
            f"kind, like --preset {owners[0]}"
        )
