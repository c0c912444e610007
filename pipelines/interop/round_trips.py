"""Runs exported to every format, loaded by the library that it is of, and compared with cpsae.

    python pipelines/interop/round_trips.py RUN... [--store acts.zarr] [--rows 1000]

Names: B rows, D dimensions, N latents, M enabled ones.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import cpsae
from cpsae.errors import ExportError
from cpsae.interop import TARGETS
from cpsae.stages.found_runs import find_runs
from cpsae.tensors import tensor_of
from cpsae.training.run_folder import RunFolder

_TINY = 1e-6
"""Of the largest latent: a softmax gives numbers that are 0 or not as they are rounded."""


class Loaded(NamedTuple):
    """An autoencoder in the library's hands."""

    encode: Callable[[Tensor], Tensor]
    """(B, D) raw -> (B, M)."""
    decode: Callable[[Tensor], Tensor]
    """(B, M), of the rows that were encoded last -> (B, D) raw."""


class Difference(NamedTuple):
    """Norm of the difference over the norm, over all rows."""

    latents: float
    outputs: float
    chosen: int
    """Latents that one has on and the other off."""


def load_sae_lens(folder: Path) -> Loaded:
    """By SAELens, with cpsae's classes."""
    from sae_lens import SAE

    import cpsae.interop.saelens_classes  # noqa: F401

    sae: Any = SAE.load_from_disk(folder)
    return Loaded(sae.encode, sae.decode)


def load_saebench(folder: Path) -> Loaded:
    """As SAEBench's evaluations take it."""
    from sae_bench.sae_bench_utils.general_utils import load_and_format_sae
    from sae_lens import SAE

    import cpsae.interop.saelens_classes  # noqa: F401

    found = load_and_format_sae("cpsae", SAE.load_from_disk(folder), "cpu")
    assert found is not None
    return Loaded(found[1].encode, found[1].decode)


def load_dictionary_learning(folder: Path) -> Loaded:
    """By dictionary_learning."""
    from dictionary_learning.utils import load_dictionary

    dictionary, _ = load_dictionary(str(folder), "cpu")
    return Loaded(dictionary.encode, dictionary.decode)


def load_sparsify(folder: Path) -> Loaded:
    """By sparsify, whose latents are the k largest and their numbers."""
    from sparsify import SparseCoder

    coder = SparseCoder.load_from_disk(folder)

    def encode(x: Tensor) -> Tensor:
        acts, indices, _ = coder.encode(x)
        return torch.zeros(len(x), coder.num_latents).scatter(1, indices, acts)

    def decode(a: Tensor) -> Tensor:
        acts, indices = a.topk(coder.cfg.k, dim=1)
        decoded: Tensor = coder.decode(acts, indices)
        return decoded

    return Loaded(encode, decode)


LOADERS: dict[str, Callable[[Path], Loaded]] = {
    "sae-lens": load_sae_lens,
    "saebench": load_saebench,
    "dictionary-learning": load_dictionary_learning,
    "sparsify": load_sparsify,
}


@torch.no_grad()
def compare(run: Path, folder: Path, target: str, latent_scale: float, x: Tensor) -> Difference:
    """x: (B, D) raw, float32."""
    ours, theirs = cpsae.load(run), LOADERS[target](folder)
    latents = ours.encode(x)
    expected = latents[:, : ours.n_enabled] * latent_scale
    found = theirs.encode(x)
    outputs = theirs.decode(found)
    differ = (found > 0) != (expected > 0)
    return Difference(
        _relative(found, expected),
        _relative(outputs, ours.decode(latents, like=x)),
        int((differ & (torch.maximum(found, expected) > _TINY * expected.max())).sum()),
    )


def _relative(found: Tensor, expected: Tensor) -> float:
    difference = (found.double() - expected.double()).norm()
    return float(difference / expected.double().norm())


def _rows(run: Path, store: str | None, count: int) -> Tensor:
    part = cpsae.open_store(store or RunFolder(run).read_config()["store"]["path"]).evaluation
    assert part is not None, "the store holds nothing out"
    rows = tensor_of(part.rows(next(iter(part.chunks))))
    return rows[:count].float()


def main(arguments: Sequence[str] | None = None) -> None:
    """A line for each run and format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--store", help="rows of this one, in place of the run's own")
    parser.add_argument("--rows", type=int, default=1000, help="held-out rows")
    asked = parser.parse_args(arguments)
    print("| run | --to | latents | outputs | other choices |\n|---|---|---|---|---|")
    for run in find_runs(asked.runs):
        x = _rows(run, asked.store, asked.rows)
        for target in (name for name in TARGETS if name in LOADERS):
            with tempfile.TemporaryDirectory() as place:
                name = "/".join(run.parts[-2:])
                print(f"| {name} | {target} | {_line(run, target, Path(place) / 'out', x)} |")


def _line(run: Path, target: str, out: Path, x: Tensor) -> str:
    try:
        done = cpsae.export(run, target, out)
        found = compare(run, out, target, done.files.latent_scale, x)
    except ExportError as error:
        return f"refused: {error} | |"
    except ImportError as error:
        return f"not installed here: {error.name} | |"
    return f"{found.latents:.1e} | {found.outputs:.1e} | {found.chosen}"


if __name__ == "__main__":
    main()
