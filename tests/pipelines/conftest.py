"""The scripts of pipelines/, importable."""

import sys
from pathlib import Path

PIPELINES = Path(__file__).parent.parent.parent / "pipelines"
sys.path.insert(0, str(PIPELINES))
