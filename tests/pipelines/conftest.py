"""The scripts of pipelines/, importable by the bare names that they have for each other."""

import sys
from pathlib import Path

PIPELINES = Path(__file__).parents[2] / "pipelines"
FOLDERS = (PIPELINES, *(PIPELINES / name for name in ("ground_truth", "saebench", "peers")))
sys.path[:0] = [str(folder) for folder in FOLDERS]
