"""How many steps a run has, and what changes over them."""

from dataclasses import asdict, dataclass

from cpsae.config.training import FitSettings

PAPER_STEPS = 4882


@dataclass(frozen=True)
class Schedule:
    """Lengths in steps, after shortening for runs shorter than the paper's (`scale_schedule`)."""

    steps: int
    warmup_steps: int
    anneal_steps: int
    decay_steps: int
    lr: float

    @classmethod
    def of(cls, settings: FitSettings, vectors: int) -> "Schedule":
        """For a store of `vectors` training rows: one epoch is floor(vectors / batch_size)."""
        steps = settings.steps or max(1, vectors // settings.batch_size)
        scale = min(1.0, steps / PAPER_STEPS) if settings.scale_schedule else 1.0
        return cls(
            steps=steps,
            warmup_steps=round(settings.warmup_steps * scale),
            anneal_steps=round(settings.temperature.anneal_steps * scale),
            decay_steps=round(settings.lr_decay * steps),
            lr=settings.lr,
        )

    def as_json(self) -> dict[str, int | float]:
        """For the run's config.json."""
        return asdict(self)

    @property
    def shortened(self) -> bool:
        """Whether warm-up and annealing were scaled down."""
        return self.steps < PAPER_STEPS

    def lr_at(self, step: int) -> float:
        """Learning rate of update `step` (the first is 1): linear warm-up, constant, and, with
        `lr_decay`, a linear fall that would reach 0 one step after the last."""
        warm = min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0
        left = self.steps + 1 - step
        cool = min(1.0, left / (self.decay_steps + 1)) if self.decay_steps else 1.0
        return self.lr * warm * cool
