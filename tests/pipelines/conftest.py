"""Scripts of pipelines/ import their neighbours by bare names, as Python finds them."""

import sys
from pathlib import Path

PIPELINES = Path(__file__).parents[2] / "pipelines"
sys.path[:0] = [str(PIPELINES / name) for name in ("ground_truth", "saebench", "peers")]
