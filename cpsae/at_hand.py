"""Whether a language model is on this machine already, told without asking the network."""

from pathlib import Path

_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def model_at_hand(model: str, revision: str | None, weights: bool = False) -> Path | None:
    """Where the model of this name is, if its tokenizer, or with `weights` all of it, is on this
    machine: a local folder or .gguf file, or the folder of the hub's cache that holds what was
    downloaded at this revision."""
    path = Path(model).expanduser()
    if path.exists():
        return path
    wanted = _WEIGHTS if weights else _TOKENIZER
    config = _cached(model, revision, ("config.json",))
    if config is None or _cached(model, revision, wanted) is None:
        return None
    return config.parent  # the cache keeps every file of a commit in one folder


def _cached(model: str, revision: str | None, names: tuple[str, ...]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        try:
            found = try_to_load_from_cache(model, name, revision=revision)
        except ValueError:  # no name of the hub: a path that is gone
            return None
        if isinstance(found, str):
            return Path(found)
    return None
