"""The files of a local model, by which it is told whether it is still the same one."""

from pathlib import Path

from cpsae.file_content import FileRecord, is_same, record_of, recorded_name

_USED = (".safetensors", ".gguf", ".py", ".model", ".jinja", ".tiktoken")
_ALSO = ("config.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json")
_TOKENIZER = ("tokenizer", "special_tokens_map")
_WEIGHTS = (".safetensors", ".gguf")
"""These are not hashed here: the fingerprint tells of them, however they are cut into files."""


def model_files(model: str) -> list[FileRecord] | None:
    """The weights, configuration, tokenizer and code that a local model is read from; None for
    one that is not local. Raises OSError."""
    found = _paths(model)
    if found is None:
        return None
    return [
        record_of(name, path, with_hash=not name.endswith(_WEIGHTS)) for name, path in found.items()
    ]


def changed_files(model: str, begun: list[FileRecord] | None) -> list[str] | None:
    """The files of a local model that are not what they were; None where only the weights
    themselves can tell. begun: None where no model of that name was local then.

    Empty, too, where the model is gone. Raises OSError.
    """
    found = _paths(model)
    if not found:
        return []
    if begun is None:
        return None
    then = {record.name: record for record in begun}
    others = sorted(
        name
        for name in found.keys() | then.keys()
        if name not in found or name not in then or not is_same(then[name], found[name])
    )
    changed = [name for name in others if not name.endswith(_WEIGHTS)]
    return changed if changed or not others else None


def _paths(model: str) -> dict[str, Path] | None:
    path = Path(model).expanduser()
    if path.is_file():
        return {path.name: path}
    if not path.is_dir():
        return None
    return {recorded_name(file.name): file for file in sorted(path.iterdir()) if _is_used(file)}


def _is_used(file: Path) -> bool:
    name = file.name
    used = name.endswith(_USED) or name in _ALSO or name.startswith(_TOKENIZER)
    return used and name[0] != "." and file.is_file()
