"""Which files of a local corpus are read: its configuration and split are chosen, and a setting
that cannot apply to what is there is refused."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cpsae.corpus import configurations
from cpsae.corpus.corpus import Corpus
from cpsae.corpus.dataset_splits import DEFAULT, choose_split, split_files
from cpsae.corpus.fields import Field
from cpsae.corpus.folder import HIDDEN, Contents, LeftOut, Source, contents_of
from cpsae.errors import CorpusError

_TABLES = ("parquet", "arrow")
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Survey:
    """What is read of a local corpus, and what is not."""

    sources: list[Source]
    """In reading order."""
    left_out: list[LeftOut]
    split: str
    splits: list[str]
    """Those that there are."""
    configuration: str | None

    @property
    def is_one_document(self) -> bool:
        """Whether a single file of text is all there is."""
        return len(self.sources) == 1 and not self.sources[0].is_records


def survey(corpus: Corpus) -> Survey:
    """Look at a local corpus. Raises CorpusError where it is gone or unreadable, has no such split
    or configuration, or where a setting is given that cannot apply to any of its files."""
    root = existing(corpus)
    contents = contents_of(root, corpus.field.name, corpus.encoding)
    _refuse_settings(corpus, contents)
    configuration = None
    declared = configurations.declared(root) if root.is_dir() else {}
    if declared or corpus.configuration is not None:
        configuration = configurations.choose(corpus.configuration, root, declared)
    splits = _splits(root, contents, configuration, declared)
    split = _choose(corpus, root, splits)
    if root.is_dir():
        _keep_split(contents, splits, split, configuration)
    if corpus.field.kind != "text":
        records = [source for source in contents.sources if source.is_records]
        contents.keep(records, f"plain text has no field '{corpus.field.name}'")
    return Survey(contents.sources, contents.left_out, split, list(splits), configuration)


def existing(corpus: Corpus) -> Path:
    """The path of a local corpus. Raises CorpusError where there is nothing."""
    if corpus.path.is_file() or corpus.path.is_dir():
        return corpus.path
    if corpus.path.exists():
        raise CorpusError(
            f"dataset {corpus.dataset}: is no regular file, and can be read only once; write it to "
            "a file first"
        )
    raise CorpusError(
        f"dataset {corpus.dataset}: there is no such file or folder; check the path, or give the "
        "name of a data set on the hub, like monology/pile-uncopyrighted"
    )


def summary(found: Survey) -> Iterator[str]:
    """Of what is read and left out, in a line each, for the terminal."""
    formats = Counter(source.format for source in found.sources)
    read = ", ".join(f"{count} {name}" for name, count in sorted(formats.items()))
    line = f"reads {files(len(found.sources))} ({read or 'none'})"
    if len(found.splits) > 1:
        line += f", split {found.split} of {', '.join(found.splits)}"
    elif found.split != DEFAULT:
        line += f", split {found.split}"
    if found.configuration is not None:
        line += f", configuration {found.configuration}"
    yield line
    if found.left_out:
        yield left_out_line(found.left_out)


def left_out_line(left_out: Sequence[LeftOut], shown: int = _NAMES_SHOWN) -> str:
    """How many files are left out, the first names, and why; what is hidden comes last."""
    ordered = in_order(left_out)
    names = ", ".join(f"{name} ({reason})" for name, reason in ordered[:shown])
    more = f", and {len(ordered) - shown} more" if len(ordered) > shown else ""
    return f"leaves out {files(len(ordered))}: {names}{more}"


def in_order(left_out: Sequence[LeftOut]) -> list[LeftOut]:
    """By name, what is hidden last: it was hardly meant."""
    return sorted(left_out, key=lambda item: (item.reason == HIDDEN, item.name))


def files(count: int) -> str:
    """A count of files, in words."""
    return "1 file" if count == 1 else f"{count:,} files"


def _refuse_settings(corpus: Corpus, contents: Contents) -> None:
    what = f"dataset {corpus.dataset}"
    if corpus.revision is not None:
        raise CorpusError(
            f"{what}: is local, so there is no revision '{corpus.revision}' of it; leave out "
            "--dataset-revision"
        )
    if not contents.sources:
        return
    if corpus.field != Field() and not any(source.is_records for source in contents.sources):
        raise CorpusError(
            f"{what}: is plain text, which has no field '{corpus.field.name}'; leave out "
            f"{corpus.field.option}, or give records (.jsonl, .json, .csv, .parquet, .arrow)"
        )
    if corpus.encoding and all(source.format in _TABLES for source in contents.sources):
        raise CorpusError(
            f"{what}: holds Parquet or Arrow files, whose text is UTF-8; leave out --encoding"
        )


def _splits(
    root: Path,
    contents: Contents,
    configuration: str | None,
    declared: dict[str, dict[str, object]],
) -> dict[str, set[str]]:
    """{split: names of its files}."""
    below = ""
    if configuration is not None:
        found = configurations.files_of(root, configuration, declared[configuration])
        if isinstance(found, dict):
            return {split: set(names) for split, names in found.items()}
        below = "" if found == "." else f"{found}/"
    sources = [source for source in contents.sources if source.name.startswith(below)]
    splits: dict[str, set[str]] = {}
    for source in sources:
        if source.split is not None:
            splits.setdefault(source.split, set()).add(source.name)
        elif not source.is_records:
            splits.setdefault(DEFAULT, set()).add(source.name)
    by_name = [s.name.removeprefix(below) for s in sources if s.is_records and s.split is None]
    for split, names in split_files(by_name).items():
        splits.setdefault(split, set()).update(below + name for name in names)
    return dict(sorted(splits.items(), key=lambda item: item[0] != DEFAULT))


def _choose(corpus: Corpus, root: Path, splits: dict[str, set[str]]) -> str:
    """A single file is `train` whatever it is called, or the split that its name tells."""
    there = list(splits) or [DEFAULT]
    if not root.is_dir():
        if corpus.split is None or corpus.split == DEFAULT:
            return DEFAULT
        there = list(dict.fromkeys([DEFAULT, *there]))
    return choose_split(corpus.split, there, f"dataset {corpus.dataset}")


def _keep_split(
    contents: Contents, splits: dict[str, set[str]], split: str, configuration: str | None
) -> None:
    other = f"not in configuration {configuration}" if configuration else "in no split, by its name"
    for name, own in splits.items():
        if name != split:
            gone = [s for s in contents.sources if s.name in own - splits.get(split, set())]
            left = {source.name for source in gone}
            contents.keep([s for s in contents.sources if s.name not in left], f"split {name}")
    own = splits.get(split, set())
    contents.keep([source for source in contents.sources if source.name in own], other)
