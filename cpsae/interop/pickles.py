"""Pickles are never opened here, for unpickling can run code; their owner is told what to do."""

import json
import shlex
from pathlib import Path


def instead_of_pickle(path: Path, safe: Path) -> str:
    """An error's text with the command that writes the tensors of `path` as `safe`. Its
    weights_only runs no code of the file; still it is the user's to run."""
    code = (
        "import torch, safetensors.torch as s; "
        f'w = torch.load({json.dumps(str(path))}, map_location="cpu", weights_only=True); '
        'w = w if isinstance(w, dict) else {"rows": w}; '
        f"s.save_file({{k: v.clone().contiguous() for k, v in w.items()}}, {json.dumps(str(safe))})"
    )
    return (
        f"{path}: is a pickle, and cpsae opens none, for unpickling can run code; this writes its "
        f"tensors beside it, and runs nothing of it: python -c {shlex.quote(code)}"
    )
