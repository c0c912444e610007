"""How many steps a run has, and what changes over them."""

import math
from dataclasses import asdict, dataclass

from cpsae.training.settings import TrainSettings

PAPER_STEPS = 4882
_WIDTH = 16_384


@dataclass(frozen=True)
class Schedule:
    """Lengths in steps, after shortening for runs shorter than the paper's (`scale_schedule`)."""

    steps: int
    warmup_steps: int
    decay_steps: int
    lr: float
    scale: float
    """By how much schedules are shortened: 1 where they are not. A kind scales its own by it."""

    @classmethod
    def of(cls, settings: TrainSettings, vectors: int, batch_size: int, n: int = 0) -> "Schedule":
        """For a store of `vectors` training rows: one epoch is floor(vectors / batch_size).
        n: features of the dictionary, which the rate of `lr_scaling = width` depends on."""
        steps = settings.steps or max(1, vectors // batch_size)
        scale = min(1.0, steps / PAPER_STEPS) if settings.scale_schedule else 1.0
        return cls(
            steps=steps,
            warmup_steps=round(settings.warmup_steps * scale),
            decay_steps=round(settings.lr_decay * steps),
            lr=settings.lr * (math.sqrt(_WIDTH / n) if settings.lr_scaling == "width" else 1),
            scale=scale,
        )

    def as_json(self) -> dict[str, int | float]:
        """For the run's config.json."""
        return asdict(self)

    def lr_at(self, step: int) -> float:
        """Learning rate of update `step` (the first is 1): linear warm-up, constant, and, with
        `lr_decay`, a linear fall that would reach 0 one step after the last."""
        warm = min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0
        left = self.steps + 1 - step
        cool = min(1.0, left / (self.decay_steps + 1)) if self.decay_steps else 1.0
        return self.lr * warm * cool
