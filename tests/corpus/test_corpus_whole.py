"""From a folder to packed tokens, against a plain reference that holds every text in memory and
tokenises it whole: random documents, formats, encodings, compression, folders and tokenizers."""

import csv
import io
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpsae.corpus import PackingPlan, find_special_tokens, pack
from cpsae.corpus.packing import TooSmallError
from tests.corpus.corpora import COMPRESS, opened
from tests.corpus.plain_packing import plain_split, same_contexts
from tests.corpus.tokenizers_of_families import FAMILIES, LINES, plain_ids

SPELLED = ["<s>", "</s>", "<|endoftext|>", "[SEP]", "<pad>", "<bos>", "<|begin_of_text|>"]
ENCODINGS = [None, "utf-8-sig", "utf-16", "utf-32", "cp1251", "utf-16-le", "shift_jis"]
WITHOUT_MARK = ("cp1251", "utf-16-le", "shift_jis")
LONG = 70_000
"""Characters: more than a window's."""


@dataclass
class Written:
    """A folder, and what is to be read of it, in order."""

    documents: list[str] = field(default_factory=list)
    has_records: bool = False


def _text(documents: list[str]) -> str:
    return documents[0]


def _jsonl(documents: list[str]) -> str:
    return "\n\n".join(json.dumps({"n": 1, "text": d}, ensure_ascii=False) for d in documents)


def _json(documents: list[str]) -> str:
    return json.dumps([{"text": d, "more": {"text": "no"}} for d in documents], indent=1)


def _table(delimiter: str):
    def table(documents: list[str]) -> str:
        file = io.StringIO(newline="")
        rows = csv.writer(file, delimiter=delimiter)
        rows.writerows([["id", "text"], *((n, d) for n, d in enumerate(documents))])
        return file.getvalue()

    return table


FORMATS = {
    ".txt": _text,
    ".md": _text,
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _table(","),
    ".tsv": _table("\t"),
}
BINARY = (".parquet", ".saved")


def write_file(path: Path, kind: str, compression: str, encoding: str, documents: list[str]):
    """The documents as they can be read again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == ".parquet":
        pq.write_table(pa.table({"text": documents}), f"{path}.parquet", row_group_size=2)
    elif kind == ".saved":
        datasets.Dataset.from_dict({"text": documents}).save_to_disk(str(path))
    else:
        documents = [d.encode(encoding, "ignore").decode(encoding) for d in documents]
        documents = documents[:1] if FORMATS[kind] is _text else documents
        data = FORMATS[kind](documents).encode(encoding)
        Path(f"{path}{kind}{compression}").write_bytes(COMPRESS[compression](data))
    return documents


def is_read(document: str) -> bool:
    return bool(document) and not document.isspace()


WITH_PIECES_LIKE_THEM = ("t5", "xlnet", "words")
"""Families in which a word of text can be a special token's id, which the plain reference gives:
that text stays text in these is tested where TextTokenizer is."""


@st.composite
def texts(draw, spelled: list[str]) -> str:
    pieces = st.one_of(
        st.sampled_from([*LINES[:5], *spelled, " ", "\n", "a", "  ", "é", "道"]),
        st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"]), max_size=30),
    )
    text = draw(st.sampled_from(["", " ", "\n"])).join(draw(st.lists(pieces, max_size=12)))
    if text and draw(st.integers(0, 11)) == 0:
        text *= -(-LONG // len(text))
    return text.lstrip("\ufeff")


@st.composite
def folders(draw, root: Path, spelled: list[str]) -> tuple[Written, str | None]:
    """Writes one; its content and the `encoding` to be read with."""
    encoding = draw(st.sampled_from(ENCODINGS))
    written, others = Written(), draw(st.booleans())
    inside = "train/" if others else draw(st.sampled_from(["", "a/b/"]))
    for number in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from([*FORMATS, *BINARY]))
        documents = draw(st.lists(texts(spelled), min_size=1, max_size=8))
        compression = draw(st.sampled_from(list(COMPRESS)))
        path = root / inside / f"f{number}"
        read = write_file(path, kind, compression, encoding or "utf-8", documents)
        written.documents += filter(is_read, read)
        written.has_records |= kind in BINARY or FORMATS.get(kind) is not _text
    if others:
        write_file(root / "test/f", ".jsonl", "", encoding or "utf-8", ["not this one"])
        written.has_records = True
    (root / ".hidden").write_text("not this one")
    (root / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    if written.has_records:
        (root / "README.md").write_bytes("not this one".encode(encoding or "utf-8"))
    return written, encoding if encoding in WITHOUT_MARK else None


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_packed_tokens_are_those_of_whole_texts_in_memory(name: str, data) -> None:
    tokenizer = FAMILIES[name]()
    root = Path(tempfile.mkdtemp(prefix="cpsae-whole-"))
    spelled = [] if name in WITH_PIECES_LIKE_THEM else SPELLED
    try:
        written, encoding = data.draw(folders(root, spelled))
        if encoding and not any(f.suffix not in (".parquet", ".arrow") for f in root.rglob("f*.*")):
            encoding = None  # which could not apply to anything, and would be refused
        ids = [plain_ids(tokenizer, text) for text in written.documents]
        total = sum(map(len, ids))
        plan = PackingPlan(
            tokens=data.draw(st.integers(2, 20)),
            vectors=data.draw(st.integers(1, max(1, min(total, 20_000)))),
            keep_bos=data.draw(st.booleans()),
            seed=data.draw(st.integers(0, 9)),
        )
        special = find_special_tokens(tokenizer)
        expected = plain_split(ids, plan, special.bos, special.separator)
        if not total:
            return
        reading = opened(root, encoding=encoding)
        if expected is None:
            with pytest.raises(TooSmallError):
                pack(reading.documents, tokenizer, plan, one_document=reading.is_one_document)
            return
        packed = pack(reading.documents, tokenizer, plan, one_document=reading.is_one_document)
        assert same_contexts(packed.training, expected[0])
        assert same_contexts(packed.evaluation, expected[1])
        again = pack(lambda: iter(written.documents), tokenizer, plan)
        assert again.training.tobytes() == packed.training.tobytes()
        assert again.evaluation.tobytes() == packed.evaluation.tobytes()
    finally:
        shutil.rmtree(root)
