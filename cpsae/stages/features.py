"""A text through a language model and a run's autoencoder, as one calls it: which features fire on
which of its tokens."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from cpsae.config.extraction import POINTS, Point, Site
from cpsae.corpus.text_tokenizer import TextTokenizer, TokenIds
from cpsae.device import choose_device, choose_dtype
from cpsae.errors import CorpusError, ModelError, RunError
from cpsae.models import TruncatedModel, find_source, load_tokenizer
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.stages.load import load

_TOKENS = 128
"""Of a context, where a run's store does not say."""
_SHOWN = 4
"""Features a token that a result shows."""


@dataclass(frozen=True, repr=False)
class TextFeatures:
    """Which features fire on which token of a text. Printed, it shows the strongest of each."""

    tokens: list[str]
    """The text of each token."""
    token_ids: list[int]
    activations: Tensor
    """(tokens, n_latents) float32, in normalised space, as `sae.encode` gives them."""

    def top(self, count: int = _SHOWN) -> list[list[tuple[int, float]]]:
        """For each token its strongest features with their activations, at most `count`, the
        strongest first; those that do not fire are left out."""
        values, features = self.activations.topk(min(count, self.activations.shape[1]), dim=1)
        return [
            [(number, value) for number, value in zip(*pair, strict=True) if value > 0]
            for pair in zip(features.tolist(), values.tolist(), strict=True)
        ]

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        shown = [repr(token)[1:-1] for token in self.tokens]
        width = max(map(len, shown))
        lines = [f"{len(self)} tokens, the strongest features of each (feature: activation)"]
        for token, features in zip(shown, self.top(), strict=True):
            listed = "  ".join(f"{number:>6}: {value:<7.4g}" for number, value in features)
            lines.append(f"  {token:<{width}}  {listed}".rstrip())
        return "\n".join(lines)


class SiteModel:
    """A language model up to the place that a run's rows are of, with its tokenizer."""

    def __init__(self, model: TruncatedModel, tokenizer: Any, context: int, drops: bool) -> None:
        """context: tokens of a context; drops: whether the store left out its first position."""
        self.name = model.description.name
        self.site = model.sites[0]
        self.d = model.d
        self._model = model
        self._tokenizer = tokenizer
        self._context = context
        self._drops = drops

    def __repr__(self) -> str:
        return f"SiteModel({self.name}, layer {self.site.layer} {self.site.point}, d = {self.d})"

    def tokens(self, text: str) -> list[str]:
        """The text of each token that `activations` has a row of."""
        return self.decode(self.token_ids(text))

    def decode(self, token_ids: Iterable[int]) -> list[str]:
        """The text of each token by itself, as of `store.training.tokens`."""
        return [str(self._tokenizer.decode([int(token)])) for token in token_ids]

    def token_ids(self, text: str) -> list[int]:
        """Their ids."""
        return [int(token) for piece in self._pieces(text) for token in piece[self._skipped :]]

    def activations(self, text: str) -> Tensor:
        """(tokens, d) float32 on the model's device: what the model gives at its site, as an
        extraction gives it. A text that is longer than the store's contexts is cut into such
        contexts, each with BOS in front where the tokenizer has one. BOS itself has no row, nor,
        without BOS, has the first position where the store left it out.

        Raises CorpusError for a text of no token.
        """
        rows = [
            self._model.activations(torch.from_numpy(piece[None]))[0, self._skipped :]
            for piece in self._pieces(text)
        ]
        return torch.cat(rows).float()

    @cached_property
    def _text(self) -> TextTokenizer:
        return TextTokenizer(self._tokenizer, embedding_rows=self._model.description.embedding_rows)

    @property
    def _skipped(self) -> int:
        return int(self._text.special.bos is not None or self._drops)

    def _pieces(self, text: str) -> list[TokenIds]:
        """The text's tokens in contexts, as packing makes them."""
        (ids,) = self._text.encode([text])
        bos = self._text.special.bos
        front = np.array([] if bos is None else [bos], np.int32)
        size = self._context - len(front)
        pieces = [np.concatenate([front, ids[i : i + size]]) for i in range(0, len(ids), size)]
        pieces = [piece for piece in pieces if len(piece) > self._skipped]
        if not pieces:
            raise CorpusError(f"text {text!r}: gives no token to look at; give a longer one")
        return pieces


def load_model(
    run: str | os.PathLike[str] | SparseAutoencoder,
    model: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> SiteModel:
    """The language model that a run's store names, up to the place that its rows are of.

    Args:
        run: its folder, or the autoencoder that `load` gave.
        model: another model: a hub name, a folder or a .gguf file, as after a fine-tuning.
        revision: of a model on the hub: branch, tag or commit.
        trust_remote_code: run code that the model's repository brings along.
        dtype: what it computes in; auto: bfloat16 on a GPU, float32 on a CPU.
        device: auto, cpu, cuda or cuda:I.

    Raises RunError where the run does not say of which layer its rows are; ModelError where no
    model is named, or the one that is cannot be read or has vectors of another length.
    """
    sae = run if isinstance(run, SparseAutoencoder) else load(run)
    site = _site(sae)
    name, revision = _name(sae, model, revision)
    source = find_source(name, revision, trust_remote_code)
    chosen = choose_device(device)
    truncated = TruncatedModel.load(source, [site], choose_dtype(dtype, chosen), chosen)
    if truncated.d != sae.d:
        raise ModelError(
            f"model {name}: has d = {truncated.d}, the autoencoder takes {sae.d}; give the model "
            "that it was trained on"
        )
    context = sae.hook.get("tokens") or _TOKENS
    drops = bool(sae.hook.get("first_position_dropped", True))
    return SiteModel(truncated, load_tokenizer(source), context, drops)


@torch.no_grad()
def features_of(
    run: str | os.PathLike[str] | SparseAutoencoder,
    text: str,
    model: str | os.PathLike[str] | SiteModel | None = None,
    *,
    device: str = "auto",
) -> TextFeatures:
    """The features that fire on each token of a text, which goes through the language model that
    the run's store names, or through `model`, and then through the run's autoencoder.

    Args:
        run: its folder, or the autoencoder that `load` gave.
        model: a name or path as of `load_model`, or, for many texts, what that gave.
        device: auto, cpu, cuda or cuda:I, for what is loaded here.

    Raises what `load` and `load_model` raise, and CorpusError for a text of no token.
    """
    loaded = not isinstance(run, SparseAutoencoder)
    sae = run if isinstance(run, SparseAutoencoder) else load(run)
    site_model = model if isinstance(model, SiteModel) else load_model(sae, model, device=device)
    rows = site_model.activations(text)
    if loaded:
        sae = sae.to(rows.device)
    latents = sae.encode(rows.to(sae.b_dec.device)).float().cpu()
    return TextFeatures(site_model.tokens(text), site_model.token_ids(text), latents)


def _site(sae: SparseAutoencoder) -> Site:
    layer, point = sae.hook.get("layer"), sae.hook.get("name", "resid_post")
    if not isinstance(layer, int) or point not in POINTS:
        raise RunError(
            "the run's store does not say of which layer its rows are, so no text can be put "
            "through it; take a run of a store that `cpsae extract` wrote"
        )
    return Site(layer, cast(Point, point))


def _name(
    sae: SparseAutoencoder, model: str | os.PathLike[str] | None, revision: str | None
) -> tuple[str, str | None]:
    if model is not None:
        return os.fspath(model), revision
    named = sae.hook.get("model")
    if not isinstance(named, str):
        raise ModelError("the run's store names no language model; give one with model=")
    return named, revision or sae.hook.get("model_revision")
