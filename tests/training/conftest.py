"""Small stores with small chunks, one thread, and the method in numpy."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "sae"))  # reference.py, the method in numpy

from small_stores import make_store, one_thread, plain_store  # noqa: E402, F401
