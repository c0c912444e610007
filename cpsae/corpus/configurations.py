"""The configurations that a data set's card declares (`configs` in the YAML of its README.md):
which files each of them has, by split. Read as `datasets` reads them for what is on the hub."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpsae.errors import CorpusError, first_line

CARD = "README.md"
_UNDERSTOOD = {"config_name", "data_files", "data_dir", "default", "description", "features"}
_CARD_START = 2**20


def declared(root: Path) -> dict[str, dict[str, Any]]:
    """{configuration: what is declared of it} of a local folder; empty where nothing is. Raises
    CorpusError for a card that is malformed."""
    card = root / CARD
    try:
        with card.open("rb") as file:
            head = file.read(_CARD_START)
    except OSError:
        return {}
    if not head.removeprefix(b"\xef\xbb\xbf").startswith(b"---") or b"configs:" not in head:
        return {}
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    try:
        found = MetadataConfigs.from_dataset_card_data(DatasetCard.load(card).data)
    except Exception as error:  # of a YAML reader, or of what looks at its values
        raise CorpusError(f"{card}: its YAML cannot be used ({first_line(error)})") from error
    return {str(name): dict(parameters) for name, parameters in found.items()}


def choose(asked: str | None, root: Path, there: Mapping[str, dict[str, Any]]) -> str | None:
    """The configuration to read: the one asked for, else the default or only one; None where none
    is declared. Raises CorpusError, which lists those that are there."""
    names = ", ".join(there) or "none, for it has no README.md that declares any"
    if asked is not None:
        if asked in there:
            return asked
        raise CorpusError(
            f"dataset {root}: has no configuration '{asked}' (there are: {names}); name one with "
            "--dataset-config, or leave it out"
        )
    default = [name for name, own in there.items() if own.get("default") or name == "default"]
    if len(there) > 1 and not default:
        raise CorpusError(
            f"dataset {root}: has several configurations ({names}); name one with --dataset-config"
        )
    return next(iter(default or there), None)


def files_of(root: Path, name: str, parameters: Mapping[str, Any]) -> dict[str, list[str]] | str:
    """{split: files, by their path from `root`} of a configuration; where it declares no files,
    the folder that has them. Raises CorpusError for files that are not there, or not inside."""
    what = f"configuration {name} of {root / CARD}"
    others = sorted(set(parameters) - _UNDERSTOOD)
    if others:
        raise CorpusError(
            f"{what}: sets {', '.join(others)}, which cpsae does not read by; give the files "
            "themselves as --dataset"
        )
    folder = str(parameters.get("data_dir") or "")
    if parameters.get("data_files") is None:
        return _inside(root, root / folder, what)
    from datasets.data_files import resolve_pattern, sanitize_patterns

    found: dict[str, list[str]] = {}
    for split, patterns in sanitize_patterns(parameters["data_files"]).items():
        for pattern in patterns:
            if "://" in str(pattern):
                raise CorpusError(f"{what}: names {pattern}, which is not inside the folder")
        try:
            paths = [path for p in patterns for path in resolve_pattern(p, str(root / folder))]
        except FileNotFoundError as error:
            raise CorpusError(f"{what}: has no files for split {split} ({error})") from error
        found[split] = sorted({_inside(root, Path(path), what) for path in paths})
    return found


def _inside(root: Path, path: Path, what: str) -> str:
    relative = Path(os.path.relpath(path, root)).as_posix()
    if relative == ".." or relative.startswith("../"):
        raise CorpusError(f"{what}: names {path}, which is not inside the folder")
    return relative
