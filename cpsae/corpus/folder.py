"""What is in a local file or folder: the files that can be read, and those left out, each with a
reason. Nothing here reads more of a file than tells what it is."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cpsae.corpus.compressed import HashedFile, decompressed
from cpsae.corpus.dataset_splits import split_of_saved
from cpsae.corpus.formats import Format, format_of, holds_nul
from cpsae.corpus.reading_errors import reading_errors
from cpsae.corpus.records import NO_JSON, why_no_records
from cpsae.errors import CorpusError

HIDDEN = "hidden"
_STATE, _DICTIONARY = "state.json", "dataset_dict.json"
_METADATA = (_STATE, _DICTIONARY, "dataset_info.json", "dataset_infos.json")
_PROSE = ("readme", "license", "licence", "citation")
_BESIDE = "it stands beside records"
_ABOUT_UNREAD = "it speaks of what cannot be read"


class LeftOut(NamedTuple):
    """A file or folder that is not read."""

    name: str
    reason: str


@dataclass(frozen=True)
class Source:
    """A file that can be read."""

    path: Path
    name: str
    """Its path from the folder that was given, or its name."""
    format: Format
    split: str | None = None
    """The one that a folder of `save_to_disk` says it is of; None: its name tells."""

    @property
    def is_records(self) -> bool:
        """Whether it holds records; else it is text."""
        return self.format != "text"


@dataclass
class Contents:
    """Everything in a local file or folder."""

    sources: list[Source] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def keep(self, sources: list[Source], reason: str) -> None:
        """Leave out all sources but these."""
        kept = {source.name for source in sources}
        self.left_out += [LeftOut(s.name, reason) for s in self.sources if s.name not in kept]
        self.sources = sources


def walk(root: Path) -> tuple[list[Path], list[LeftOut]]:
    """`root` itself where it is a file, else the files below it, sorted by their relative names;
    and what is hidden, a link to a folder (it could lead in a circle) or no file at all. Raises
    CorpusError where a folder cannot be read."""
    if not root.is_dir():
        return [root], []

    def fail(error: OSError) -> None:
        raise CorpusError(f"{error.filename}: cannot be read ({error.strerror})") from error

    files, left_out = [], []
    for folder, folders, names in os.walk(root, onerror=fail):
        for name in list(folders):
            reason = _why_no_folder(Path(folder, name))
            if reason:
                folders.remove(name)
                left_out.append(LeftOut(_relative(Path(folder, name), root) + "/", reason))
        for name in names:
            reason = _why_no_file(Path(folder, name))
            if reason:
                left_out.append(LeftOut(_relative(Path(folder, name), root), reason))
            else:
                files.append(Path(folder, name))
    return sorted(files, key=lambda path: _relative(path, root)), sorted(left_out)


def contents_of(root: Path, wanted: str, encoding: str | None) -> Contents:
    """What there is to read at `root`, in reading order. `wanted`, the field's name, and the
    encoding tell whether a .json file holds records.

    Raises CorpusError where a file cannot be read, or where `root` is one file of no format.
    """
    files, left_out = walk(root)
    contents = Contents(left_out=left_out)
    saved = {folder: state for file in files for folder, state in _saved_folder(file)}
    splits = {split for file in files for split in _saved_splits(file)}
    no_records: dict[str, str] = {}
    for file in files:
        name = file.name if file == root else _relative(file, root)
        if file.parent in saved:
            if file.name == _STATE:
                contents.sources += _saved_sources(file, root, saved[file.parent], splits)
            continue
        with reading_errors(file):
            found = format_of(file)
            if found.format is None:
                contents.left_out.append(LeftOut(name, found.reason))
                continue
            if found.format == "json" and (reason := _why_text(file, wanted, encoding)):
                no_records[name] = reason
        contents.sources.append(Source(file, name, "text" if name in no_records else found.format))
    _leave_out_unsaved(contents, files, root, saved)
    if file_alone := not root.is_dir():
        _refuse_no_format(root, contents, no_records)
    if not file_alone and any(source.is_records for source in contents.sources):
        _leave_out_beside_records(contents, no_records)
    elif not file_alone:
        _leave_out_beside_unread(contents, no_records, encoding)
    return contents


def _refuse_no_format(root: Path, contents: Contents, no_records: dict[str, str]) -> None:
    reason = contents.left_out[0].reason if contents.left_out else no_records.get(root.name)
    if reason:
        raise CorpusError(
            f"{root}: is {reason}; expected text, or records in .jsonl, .json, .csv, .tsv, "
            ".parquet or .arrow (of .json a list of objects, or one object a line)"
        )


def _leave_out_beside_records(contents: Contents, no_records: dict[str, str]) -> None:
    """A README is text among texts; beside records it only speaks of them."""
    kept = []
    for source in contents.sources:
        file = PurePosixPath(source.name)
        if source.is_records:
            kept.append(source)
        elif file.name in _METADATA:
            contents.left_out.append(LeftOut(source.name, "metadata of datasets"))
        elif source.name in no_records:
            if no_records[source.name] == NO_JSON:
                raise CorpusError(f"{source.path}: is {NO_JSON}; mend or remove the file")
            contents.left_out.append(LeftOut(source.name, no_records[source.name]))
        elif file.name.lower().startswith(_PROSE):
            contents.left_out.append(LeftOut(source.name, _BESIDE))
        else:
            kept.append(source)
    contents.sources = kept


def _leave_out_beside_unread(
    contents: Contents, no_records: dict[str, str], encoding: str | None
) -> None:
    """Where nothing but a README and its like can be read beside data that cannot, that is not the
    corpus that was meant. .json files of no records are such data where there is no other text."""
    data = {s.name for s in contents.sources if s.name in no_records and not _is_about(s)}
    others = [s for s in contents.sources if s.name not in data and not _is_about(s)]
    has_unread = bool(data or others) or any(x.reason != HIDDEN for x in contents.left_out)
    if has_unread and all(not encoding and holds_nul(s.path) for s in others):
        for source in contents.sources:
            if source not in others:
                reason = no_records[source.name] if source.name in data else _ABOUT_UNREAD
                contents.left_out.append(LeftOut(source.name, reason))
        contents.sources = others


def _is_about(source: Source) -> bool:
    name = PurePosixPath(source.name).name
    return name in _METADATA or name.lower().startswith(_PROSE)


def _why_text(file: Path, wanted: str, encoding: str | None) -> str:
    """Why a .json file is to be taken for text; "" where it holds records."""
    if file.name in _METADATA:
        return "metadata of datasets"
    with HashedFile(file) as raw:
        return why_no_records(decompressed(raw), str(file), encoding, wanted)


def _saved_folder(file: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder of `save_to_disk` that `file` is the state of, with that, if it is one."""
    if file.name == _STATE:
        state = _read_json(file)
        if isinstance(state, dict) and isinstance(state.get("_data_files"), list):
            yield file.parent, state


def _saved_splits(file: Path) -> Iterator[Path]:
    """The folders that `file`, if it is a DatasetDict's, lists."""
    if file.name == _DICTIONARY:
        dictionary = _read_json(file)
        if isinstance(dictionary, dict) and isinstance(dictionary.get("splits"), list):
            yield from (file.parent / str(split) for split in dictionary["splits"])


def _saved_sources(
    state_file: Path, root: Path, state: dict[str, Any], splits: set[Path]
) -> list[Source]:
    """The files of one saved data set, in its order: neither the names nor the folder tell it."""
    folder = state_file.parent
    if state.get("_indices_data_files"):
        raise CorpusError(
            f"{folder}: holds a selection of rows in a form that only old versions of datasets "
            "wrote; load it and save it again"
        )
    split = folder.name if folder in splits else split_of_saved(state)
    sources = []
    for entry in state["_data_files"]:
        file = folder / str(entry.get("filename") if isinstance(entry, dict) else entry)
        if file.parent != folder or not file.is_file():
            raise CorpusError(
                f"{folder}: lacks {file.name}, which its {_STATE} names; copy it whole"
            )
        sources.append(Source(file, _relative(file, root), "arrow", split))
    return sources


def _leave_out_unsaved(
    contents: Contents, files: list[Path], root: Path, saved: dict[Path, dict[str, Any]]
) -> None:
    named = {source.path for source in contents.sources}
    for file in files:
        if file.parent in saved and file not in named:
            is_metadata = file.name in _METADATA
            reason = "metadata of datasets" if is_metadata else f"not named in its {_STATE}"
            contents.left_out.append(LeftOut(_relative(file, root), reason))


def _why_no_folder(folder: Path) -> str:
    if folder.name[0] == "." or folder.name == "__pycache__":
        return HIDDEN
    return "a link to a folder" if folder.is_symlink() else ""


def _why_no_file(file: Path) -> str:
    if file.name[0] == ".":
        return HIDDEN
    if file.is_file():
        return ""
    return "a dead link" if file.is_symlink() else "no file"


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
