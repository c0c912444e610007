"""Which files of records belong to which split, by their names: the rule that `datasets` has for a
folder or a repository, so that local and hub data sets have the same splits."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from cpsae.errors import CorpusError

DEFAULT = "train"
_KEYWORDS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "dev", "val"),
}
_SEPARATOR = "[-._ 0-9]"
_SHARD = re.compile(r"data/(.+)-\d{5}-of-\d{5}[^/]*\.[^/]*")


def split_files(names: Sequence[str]) -> dict[str, list[str]]:
    """The split of each file, by its path from the folder: {split: names, in their order}.

    The first of these rules that some file fits holds for all, and who does not fit is in no split:
    data/SPLIT-00000-of-00001.*; a folder on the way named like a split; the file named like one.
    Where none does, all files are `train`.
    """
    shards = {name: match[1] for name in names if (match := _SHARD.fullmatch(name))}
    if shards:
        return _grouped(names, lambda name: [shards[name]] if name in shards else [])
    by_folder = _grouped(names, lambda name: _splits(PurePosixPath(name).parts[:-1]))
    if by_folder:
        return by_folder
    by_name = _grouped(names, lambda name: _splits([PurePosixPath(name).name], is_file=True))
    return by_name or ({DEFAULT: list(names)} if names else {})


def choose_split(asked: str | None, there: Sequence[str], what: str) -> str:
    """The split to read: the one asked for, else the only one, else `train`. Raises CorpusError,
    which calls the data set by `what`, and lists those that are there."""
    if asked in there and asked is not None:
        return asked
    names = ", ".join(there) or "none"
    if asked is not None:
        raise CorpusError(
            f"{what}: has no split '{asked}' (there are: {names}); name one with --split"
        )
    if len(there) == 1:
        return there[0]
    if DEFAULT in there:
        return DEFAULT
    raise CorpusError(f"{what}: has several splits ({names}); name one with --split")


def split_of_saved(state: Mapping[str, object]) -> str:
    """The split that a folder of `save_to_disk` says it is, without the slice it may have been."""
    name = re.match(r"\w+(\.\w+)*", str(state.get("_split") or ""))
    return name[0] if name else DEFAULT


def _splits(parts: Sequence[str], is_file: bool = False) -> list[str]:
    """The splits whose keywords a file's name, or a folder on its way, has: between separators,
    and in a file's name with one behind it."""
    end = _SEPARATOR if is_file else f"({_SEPARATOR}|$)"
    return [
        split
        for split, keywords in _KEYWORDS.items()
        if any(
            re.search(f"(^|{_SEPARATOR}){keyword}{end}", part)
            for keyword in keywords
            for part in parts
        )
    ]


def _grouped(names: Sequence[str], splits_of: Callable[[str], list[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {split: [] for split in _KEYWORDS}
    for name in names:
        for split in splits_of(name):
            found.setdefault(split, []).append(name)
    return {split: own for split, own in found.items() if own}
