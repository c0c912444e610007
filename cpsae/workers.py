"""Which worker of how many this process is: torchrun and Slurm say so in the environment."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Worker:
    """Worker `rank` of `count`; `local_rank` counts within the machine and picks its GPU."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_leader(self) -> bool:
        """The one worker that prepares the store, holds its lock and completes it."""
        return self.rank == 0

    @classmethod
    def from_environment(cls) -> "Worker":
        """From torchrun's variables, else those of Slurm's `srun`, else the only worker.

        SLURM_NTASKS will not do: a batch script that starts no step has it too, as the one process
        of many tasks that nobody started.
        """
        for rank, count, local in (
            ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
            ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
        ):
            if rank in os.environ and count in os.environ:
                return cls(
                    int(os.environ[rank]), int(os.environ[count]), int(os.environ.get(local, 0))
                )
        return cls()
