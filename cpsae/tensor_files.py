"""Files of safetensors, read."""

from pathlib import Path

import safetensors.torch
import torch


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, by name. Raises OSError, SafetensorError or ValueError."""
    try:
        str(path).encode()
    except UnicodeEncodeError:  # the library opens no name that is not UTF-8
        return safetensors.torch.load(path.read_bytes())
    return safetensors.torch.load_file(path)
