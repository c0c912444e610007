"""What a corpus was read from, as a store keeps it, and whether that is still the same."""

from pathlib import Path

from cpsae.corpus.corpus import Corpus
from cpsae.corpus.files import FileRead
from cpsae.corpus.folder import walk
from cpsae.corpus.reading_errors import reading_errors
from cpsae.corpus.sources import LocalReading, Reading
from cpsae.corpus.survey import in_order
from cpsae.file_content import FileRecord, is_same, record_of, recorded_name
from cpsae.origins import CorpusRecord, LeftOutRecord


def record_corpus(reading: Reading, corpus: Corpus) -> CorpusRecord:
    """What a reading has read, once it is over. Raises CorpusError where a file is gone by then."""
    if not isinstance(reading, LocalReading):
        return CorpusRecord(
            split=reading.split, configuration=corpus.configuration, commit=reading.commit
        )
    return CorpusRecord(
        split=reading.split,
        configuration=reading.survey.configuration,
        commit=None,
        files=[_record(read) for read in reading.reads],
        formats={recorded_name(r.source.name): r.source.format for r in reading.reads},
        left_out=[
            LeftOutRecord(name=recorded_name(n), reason=reason)
            for n, reason in in_order(reading.left_out)
        ],
    )


def changed_content(record: CorpusRecord, corpus: Corpus) -> list[str]:
    """The files of a local corpus that do not hold any more what was read of them. Raises
    CorpusError where one cannot be read."""
    if not corpus.is_local or not corpus.path.exists():
        return []
    changed = []
    for file in record.files:
        path = _path_of(file.name, corpus.path)
        with reading_errors(path):
            if not is_same(file, path):
                changed.append(file.name)
    return changed


def _path_of(name: str, root: Path) -> Path:
    if not root.is_dir():
        return root
    path = root / name
    if "\\x" not in name or path.exists():
        return path
    files, _ = walk(root)
    return next((f for f in files if recorded_name(str(f.relative_to(root))) == name), path)


def _record(read: FileRead) -> FileRecord:
    hashed = (read.raw.reached, read.raw.sha256) if read.raw is not None else None
    with reading_errors(read.source.path):
        return record_of(recorded_name(read.source.name), read.source.path, read.status, hashed)
