"""The small stores of tests/training, and one thread."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))

from small_stores import make_store, one_thread, plain_store  # noqa: E402, F401
