"""Where a model comes from: the hub, a local folder, or a local .gguf file."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoTokenizer

from cpsae.errors import ModelError
from cpsae.models.guard import PICKLE_ONLY, model_errors

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class ModelSource:
    """A model whose place is known; on the hub, pinned to one commit for every later download."""

    name: str
    """As the user gave it."""
    kind: Literal["hub", "folder", "gguf"]
    path: str
    """A hub name or a local folder (the one that holds the .gguf file)."""
    gguf_file: str | None = None
    """Absolute, because transformers looks for a bare name in the working folder first."""
    revision: str | None = None
    commit: str | None = None
    trust_remote_code: bool = False
    arguments: dict[str, Any] = field(init=False, repr=False, compare=False)
    """What every from_pretrained takes beside `path`."""

    def __post_init__(self) -> None:
        arguments: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        if self.commit is not None:
            arguments["revision"] = self.commit
        if self.gguf_file is not None:
            arguments["gguf_file"] = self.gguf_file
        object.__setattr__(self, "arguments", arguments)


def find_source(
    model: str, revision: str | None = None, trust_remote_code: bool = False
) -> ModelSource:
    """Find a model by hub name, local folder or local .gguf file. Reads no weights.

    A hub name costs one small download (config.json), which settles the commit. Raises ModelError
    where there is no such model, or it is gated, out of reach, or has no safetensors weights.
    """
    path = Path(model).expanduser()
    if not path.exists():
        if path.suffix == ".gguf" or not _HUB_NAME.fullmatch(model):
            raise ModelError(f"model {model}: there is no such file or folder; check the path")
        return _on_the_hub(model, revision, trust_remote_code)
    if revision is not None:
        raise ModelError(f"model {model}: a local model has no revisions; leave --revision out")
    path = path.resolve()
    if path.is_dir():
        _check_folder(model, path)
        return ModelSource(model, "folder", str(path), trust_remote_code=trust_remote_code)
    _check_gguf(model, path)
    return ModelSource(model, "gguf", str(path.parent), gguf_file=str(path))


def load_tokenizer(source: ModelSource) -> Any:
    """The model's own tokenizer (transformers). Raises ModelError where it has none."""
    with model_errors(source.name, "loading its tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source.path, **source.arguments)
    # where the files are missing, some classes come back with special tokens and nothing else
    if tokenizer.get_vocab().keys() <= tokenizer.get_added_vocab().keys():
        raise ModelError(
            f"model {source.name}: has no tokenizer; put its tokenizer.json beside the weights"
        )
    return tokenizer


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """SHA-256 (hex) of what a tokenizer does with text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _on_the_hub(model: str, revision: str | None, trust_remote_code: bool) -> ModelSource:
    with model_errors(model, "reading its config.json from the hub"):
        _knock(model, revision)
        config = hf_hub_download(model, "config.json", revision=revision)
    # the cache keeps every file under snapshots/COMMIT/
    commit = Path(config).parent.name
    return ModelSource(
        model,
        "hub",
        model,
        revision=revision,
        commit=commit,
        trust_remote_code=trust_remote_code,
    )


def _knock(model: str, revision: str | None) -> None:
    """Ask the hub once, so that where it cannot be reached one learns so at once: a download of
    what is not in the cache is tried again for half a minute."""
    if constants.HF_HUB_OFFLINE or try_to_load_from_cache(model, "config.json", revision=revision):
        return
    try:
        get_hf_file_metadata(hf_hub_url(model, "config.json", revision=revision))
    except HfHubHTTPError:
        return  # the hub answers; what it says is explained by the download
    except Exception as error:  # of the HTTP library, whichever it is
        raise ConnectionError(str(error)) from error


def _check_folder(model: str, folder: Path) -> None:
    """Raise ModelError unless the folder holds a config and safetensors weights."""
    if not (folder / "config.json").is_file():
        ggufs = sorted(folder.glob("*.gguf"))
        advice = f"give the file itself, {ggufs[0].name}" if ggufs else "check the path"
        raise ModelError(
            f"model {model}: expected a folder with config.json and .safetensors files, as "
            f"save_pretrained writes it, but there is no config.json; {advice}"
        )
    if (folder / "adapter_config.json").exists():
        raise ModelError(f"model {model}: is an adapter; merge it into its base model first")
    if any(folder.glob("*.safetensors")):
        return
    if any(any(folder.glob(pattern)) for pattern in _PICKLES):
        raise ModelError(f"model {model}: {PICKLE_ONLY}")
    raise ModelError(f"model {model}: the folder holds a config.json but no .safetensors weights")


def _check_gguf(model: str, file: Path) -> None:
    """Raise ModelError unless the file starts as a GGUF file does."""
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise ModelError(f"model {model}: cannot be read ({error.strerror})") from error
    if magic != b"GGUF":
        raise ModelError(
            f"model {model}: is no GGUF file; expected a hub name, a folder or a .gguf file"
        )
