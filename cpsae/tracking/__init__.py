"""Runs shown in experiment trackers while they are trained.

metrics.jsonl is the record. One process for each tracker, apart from the training, reads it as it
grows and hands on what is new, so that a tracker that fails, hangs or prints cannot touch a run.
"""

TRACKERS = {"trackio": "trackio", "wandb": "wandb", "tensorboard": "tensorboard"}
"""The trackers that there are, each with the module (and the package) that it needs."""
PROJECT = "cpsae"
"""Where runs are filed unless another name is given."""
