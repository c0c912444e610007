"""Settings of stage 2. Where METHOD section 5 lists a reading of the paper, the field names it."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from cpsae.config.base import Count, Device, Settings

KINDS_FOLDER = Path(__file__).parent.parent / "sae" / "kinds"


def kind_names() -> list[str]:
    """The kinds of SAE: one module each in cpsae/sae/kinds (listed, not imported: no torch)."""
    return sorted(path.stem for path in KINDS_FOLDER.glob("[a-z]*.py"))


class TemperatureSettings(Settings):
    """Temperature of the competition (Eq. 6; readings 7, 8, 9)."""

    base: float = Field(0.1, gt=0)
    """T_base once annealing has ended."""
    sensitivity: float = Field(0.3, ge=0)
    """s: how strongly utilisation raises the temperature."""
    min: float = Field(0.05, gt=0)
    max: float = Field(0.3, gt=0)
    """Bounds that clamp the result of Eq. 6."""
    momentum: float = Field(0.99, ge=0, lt=1)
    """T_t = momentum * T_(t-1) + (1 - momentum) * clamp(Eq. 6)."""
    anneal_from: float = Field(0.3, gt=0)
    """T_base at step 0."""
    anneal_steps: Count = Field(2000, ge=0)
    """Steps in which T_base falls linearly from `anneal_from` to `base`; 0 turns this off."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "TemperatureSettings":
        if self.min > self.max:
            raise ValueError(f"temperature.min ({self.min}) is above temperature.max ({self.max})")
        return self


class CompetitionSettings(Settings):
    """Over which features the softmax of Eq. 5 is taken (reading 10)."""

    over: Literal["enabled", "active"] = "enabled"
    """enabled: all enabled ones, f = 0 counts with exp(0); active: those with f > 0."""


class FitSettings(Settings):
    """What `cpsae fit` is asked for. The defaults are the `paper` preset."""

    # --- the autoencoder
    kind: str = "competitive"
    """How encoder outputs become latents: a module of cpsae/sae/kinds."""
    n_latents: Count | None = Field(None, ge=1)
    """n, the size of the dictionary; by default the store's d, as in the paper."""
    k: Count = Field(32, ge=1)
    """Latents a row, for the kinds that count them (topk, batchtopk)."""
    normalize: Literal["layer", "layer-variance", "unit", "sqrt-d", "none"] = "layer"
    """How rows are scaled before the encoder, and back after the decoder (reading 12)."""
    max_norm: float = Field(10.0, ge=0)
    """Rows over this many times the training rows' median norm are skipped; 0: none are."""
    init: Literal["tied", "uniform"] = "tied"
    """Initial weights (reading 20)."""
    center: bool = False
    """Let the encoder see x - b_dec; Eq. 1 as written does not. Folded into b_enc when saved."""

    # --- objective
    l1: float = Field(0.04, ge=0)
    """lambda of Eq. 2."""
    l1_on: Literal["competed", "raw"] = "competed"
    """The L1 term is on a (Eq. 2) or on f (reading 11)."""
    mse_reduction: Literal["sum", "mean"] = "sum"
    """Squared error summed or averaged over d; always averaged over the batch (reading 13)."""

    # --- competition and progressive enabling
    temperature: TemperatureSettings = TemperatureSettings()
    competition: CompetitionSettings = CompetitionSettings()
    growth: Literal["hybrid", "fixed", "none"] = "hybrid"
    """hybrid: Eq. 4; fixed: always 5; none: all features enabled from step 0."""
    growth_every: Count = Field(1, ge=1)
    """Steps between two growths (reading 5)."""
    initial_fraction: float = Field(0.25, gt=0, le=1)
    """n_0 = floor(initial_fraction * n), at least 1."""
    utilisation: Literal["mean", "any"] = "mean"
    """The indicator of Eq. 3 averaged over the batch, or 1 where any row has it (reading 3)."""
    importance_beta: float = Field(0.9, ge=0, lt=1)
    """beta of Eq. 3."""
    importance_threshold: float = Field(0.01, ge=0)
    """tau of Eq. 3."""

    # --- optimisation
    steps: Count | None = Field(None, ge=1)
    """Updates; by default one epoch, floor(vectors / batch_size)."""
    batch_size: Count = Field(2048, ge=1)
    optimizer: Literal["adamw", "adam"] = "adamw"
    """adamw decays the two matrices; adam decays nothing (reading 2)."""
    lr: float = Field(3e-4, gt=0)
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
    device: Device = "auto"
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the matrix products; weights and sums are float32. auto: bfloat16 on a GPU."""
    window_chunks: Count = Field(8, ge=1)
    """Chunks that are mapped together and whose rows are shuffled together."""
    log_every: Count = Field(10, ge=1)
    checkpoint_every: Count = Field(500, ge=1)
    """Steps between two checkpoints; rounded up to a multiple of log_every."""
    keep_checkpoints: Count = Field(2, ge=1)

    @field_validator("max_norm")
    @classmethod
    def _keeps_the_median(cls, value: float) -> float:
        if 0 < value < 1:
            raise ValueError("expected 0 (off) or 1 and more: less would leave out the median row")
        return value

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, value: str) -> str:
        if value not in kind_names():
            raise ValueError(f"no kind of SAE is called '{value}': take {', '.join(kind_names())}")
        return value
