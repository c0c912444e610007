"""Run by each of the processes of test_processes.py: fits one after another, all of this group.
Arguments: store, folder of the runs, JSON of cases: name, preset, settings."""

import json
import sys
from pathlib import Path

import torch

from cpsae.stages.fit import fit
from cpsae.training.recipes import preset, resolve_fit

if __name__ == "__main__":
    store, out, cases = sys.argv[1:]
    torch.set_num_threads(1)
    for name, preset_name, settings in json.loads(cases):
        layers = {"--set": settings, f"preset {preset_name}": preset(preset_name)}
        fit(store, resolve_fit(layers).settings, preset=preset_name, out=Path(out) / name)
