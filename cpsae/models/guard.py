"""Calling transformers on what a user names: quietly, and with errors of one line."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from safetensors import SafetensorError
from transformers.utils import logging

from cpsae.errors import CpsaeError, ModelError, causes

try:
    from transformers import modeling_gguf_pytorch_utils as gguf_reader
except ImportError:  # newer releases of transformers read GGUF elsewhere, without a bar
    gguf_reader = None

LONGEST_REASON = 300
"""Characters of a foreign error's text that are worth showing."""

PICKLE_ONLY = (
    "has no .safetensors weights; pickled weights are never loaded, because unpickling runs code: "
    "convert them to safetensors where they come from (save_pretrained writes them)"
)


CHECK_IT = "check that it is whole, and that the installed transformers knows this architecture"


_PANIC = "PanicException"
"""Of libraries in Rust, such as tokenizers: no Exception, and no class that could be imported."""


@contextmanager
def model_errors(name: str, doing: str, advice: str = CHECK_IT) -> Iterator[None]:
    """Silence transformers, and turn whatever it raises into a ModelError about the model `name`,
    with the advice where the kind of error says nothing better.

    Catches every Exception: what a damaged or foreign file makes a parser raise cannot be listed
    (OSError, ValueError, KeyError, struct.error and IndexError were all seen). So wrap only the
    calls that read what the user named; the original stays as the cause.
    """
    try:
        with quiet_transformers():
            yield
    except CpsaeError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        raise ModelError(f"model {name}: {_explain(error, doing, advice)}") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Mute transformers' log, its bars and Python warnings within; put all back afterwards.

    The load report must be silenced here alone: dropping blocks on purpose makes it list hundreds
    of unexpected weights, while the missing ones are checked by the caller. The hub's own bars stay
    as they were: a download of gigabytes should show that it lives.
    """
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # the hub's too
    if hub_bars:
        enable_progress_bars()
    try:
        with _no_gguf_bar(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # the hub's too
        if not hub_bars:
            disable_progress_bars()


@contextmanager
def _no_gguf_bar() -> Iterator[None]:
    """The bar of transformers' GGUF reader obeys no setting."""
    bar = getattr(gguf_reader, "tqdm", None)
    if gguf_reader is None or bar is None:
        yield
        return
    gguf_reader.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        gguf_reader.tqdm = bar


def _explain(error: BaseException, doing: str, advice: str) -> str:
    """What went wrong and what to do, judged by the whole chain of causes."""
    chain = list(causes(error))
    for kinds, text in _BY_TYPE:
        if any(isinstance(cause, kinds) for cause in chain):
            return text if isinstance(text, str) else text(error)
    shown = str(error)
    if "trust_remote_code" in shown:
        return "needs code that its repository ships; take --trust-remote-code if you trust it"
    if "does not appear to have a file named" in shown and "safetensors" in shown:
        return PICKLE_ONLY
    return f"{doing} failed ({reason(error)}); {advice}"


def reason(error: BaseException) -> str:
    """The first line of an error's text, shortened, with the error's type."""
    lines = str(error).strip().splitlines() or ["no reason given"]
    text = lines[0] if len(lines[0]) <= LONGEST_REASON else lines[0][:LONGEST_REASON] + "…"
    return f"{type(error).__name__}: {text}"


def _damaged(error: BaseException) -> str:
    return f"a .safetensors file is damaged or cut short ({reason(error)}); fetch it again"


def _no_memory(error: BaseException) -> str:
    return f"does not fit the device's memory ({reason(error)}); take a larger one, or bfloat16"


def _no_package(error: BaseException) -> str:
    return f"needs a package that is not installed ({reason(error)})"


_OUT_OF_REACH = (
    "is not in the local cache and the hub cannot be reached; check the network and "
    "HF_HUB_OFFLINE, or give a local folder or .gguf file"
)
_Explanation = str | Callable[[BaseException], str]
_BY_TYPE: list[tuple[Any, _Explanation]] = [
    # GatedRepoError is a RepositoryNotFoundError: the order matters
    (
        GatedRepoError,
        "is gated: accept its terms on the hub, then `hf auth login`, or give a local folder",
    ),
    (RevisionNotFoundError, "has no such revision on the hub; check --revision"),
    (
        RepositoryNotFoundError,
        "is no local path, and no model on the hub that you may read; check it, or `hf auth login`",
    ),
    (
        (OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError),
        _OUT_OF_REACH,
    ),
    (SafetensorError, _damaged),
    ((torch.OutOfMemoryError, MemoryError), _no_memory),
    (ImportError, _no_package),
]
