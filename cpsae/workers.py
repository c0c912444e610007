"""Which worker of how many this process is: torchrun and Slurm say so in the environment."""

import os
from dataclasses import dataclass, field

from cpsae.errors import SettingsError

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")


@dataclass(frozen=True)
class Worker:
    """Worker `rank` of `count`; `local_rank` counts within the machine and picks its GPU."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    variables: tuple[str, ...] = field(default=(), compare=False)
    """The environment's variables that said so."""

    @property
    def is_leader(self) -> bool:
        """The one worker that prepares the store, holds its lock and completes it."""
        return self.rank == 0

    def __str__(self) -> str:
        source = f" (by {' and '.join(self.variables)})" if self.variables else ""
        return f"worker {self.rank} of {self.count}, counted from 0{source}"

    @classmethod
    def from_environment(cls) -> "Worker":
        """From torchrun's variables, else those of Slurm's `srun`, else the only worker. An empty
        variable is one that is not set.

        SLURM_NTASKS will not do: a batch script that starts no step has it too, as the one process
        of many tasks that nobody started. Raises SettingsError where a variable is no number or
        they contradict each other.
        """
        rank, count, _ = _TORCHRUN
        for one, other in ((rank, count), (count, rank)):
            if os.environ.get(one) and not os.environ.get(other):
                raise SettingsError(
                    f"{one}={os.environ[one]}: is set in the environment without {other}; "
                    f"unset {one}, or start the workers with torchrun, which sets both"
                )
        for names in (_TORCHRUN, _SLURM):
            if all(os.environ.get(name) for name in names[:2]):
                return cls._from(*names)
        return cls()

    @classmethod
    def _from(cls, rank: str, count: str, local: str) -> "Worker":
        worker = cls(
            _number(rank),
            _number(count),
            _number(local) if os.environ.get(local) else 0,
            (rank, count),
        )
        if worker.rank >= worker.count:
            raise SettingsError(
                f"{rank}={worker.rank}: contradicts {count}={worker.count} in the environment: "
                f"expected 0 to {count} - 1; unset both, or start the workers with torchrun or srun"
            )
        return worker


def _number(name: str) -> int:
    text = os.environ[name].strip()
    if not (text.isascii() and text.isdecimal()):
        raise SettingsError(
            f"{name}={text}: expected a whole number of 0 or more in this variable of the "
            "environment; unset it, or start the workers with torchrun or srun, which set it"
        )
    return int(text)
