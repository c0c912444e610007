"""Encodings: told by a mark or by the user, never guessed."""

import json

import pytest

from cpsae.corpus.encodings import Decoder, encoding_of
from tests.corpus.corpora import error, left_out, opened, read, texts, write_jsonl

NOVEL = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива. " * 40
MARKED = ["utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize("encoding", MARKED)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.tsv", "notes"])
def test_marks_are_honoured_in_every_format(tmp_path, encoding: str, name: str) -> None:
    content = {
        "a.jsonl": json.dumps({"text": NOVEL}, ensure_ascii=False) + "\n",
        "a.json": json.dumps([{"text": NOVEL}], ensure_ascii=False),
        "a.csv": f'text,n\n"{NOVEL}",1\n',
        "a.tsv": f"text\tn\n{NOVEL}\t1\n",
    }.get(name, NOVEL)
    (tmp_path / name).write_bytes(content.encode(encoding))
    (tmp_path / "other.txt").write_text("beside it")
    assert read(tmp_path / name) == [NOVEL]
    assert read(tmp_path) == [NOVEL, "beside it"]


@pytest.mark.parametrize("mark", ["utf-16-be", "utf-32-be", "utf-16-le"])
def test_marks_of_either_byte_order(tmp_path, mark: str) -> None:
    (tmp_path / "a.txt").write_bytes(("\ufeff" + NOVEL).encode(mark))
    assert read(tmp_path) == [NOVEL]


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "latin-1", "gbk", "shift_jis"])
def test_another_encoding_is_refused_and_can_be_named(tmp_path, encoding: str) -> None:
    texts_of = {
        "latin-1": "Le café était fermé à Noël. ",
        "gbk": "道可道，非常道。",
        "shift_jis": "吾輩は猫である。",
    }
    text = texts_of.get(encoding, NOVEL) * 50
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    said = error(tmp_path)
    assert said.startswith(f"{tmp_path}/a.txt: is not UTF-8 (")
    assert "characters cannot be decoded); name its encoding with --encoding" in said
    assert read(tmp_path, encoding=encoding) == [text]


def test_the_likely_encoding_is_named(tmp_path) -> None:
    (tmp_path / "a.txt").write_bytes(NOVEL.encode("cp1251"))
    assert "(it looks like cp1251)" in error(tmp_path)


def test_the_count_is_right_and_the_bound_is_one_in_a_thousand(tmp_path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"x" * 1997 + b"\xe9\xe8 ")
    assert read(file) == ["x" * 1997 + "\ufffd\ufffd "]
    reading = opened(file)
    list(reading.documents())
    said = f"dataset {file}: 2 characters of 1 file could not be decoded and became U+FFFD; "
    assert list(reading.surprises()) == [f"{said}the first is {file}"]
    file.write_bytes(b"x" * 1997 + b"\xe9 \xe8 \xe9 ")
    assert "is not UTF-8 (3 of its 2,003 characters cannot be decoded)" in error(file)


def test_a_text_may_hold_the_replacement_character_itself(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("\ufffd" * 50 + "x" * 50, encoding="utf-8")
    assert read(tmp_path) == ["\ufffd" * 50 + "x" * 50]


@pytest.mark.parametrize("cut", range(1, 9))
def test_pieces_are_decoded_as_the_whole(cut: int) -> None:
    data = ("aé漢🙂\ufffd" * 3).encode() + b"\xff\xf0\x9f b\xc3"
    decoder = Decoder("utf-8")
    pieces = [decoder.decode(data[i : i + cut]) for i in range(0, len(data), cut)]
    pieces.append(decoder.decode(b"", final=True))
    assert "".join(pieces) == data.decode(errors="replace")
    assert decoder.bad == data.decode(errors="replace").count("\ufffd") - 3


def test_a_long_text_is_looked_at_before_it_is_used(tmp_path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"good text\n" * 200_000 + NOVEL.encode("cp1251") * 3)
    assert "is not UTF-8" in error(file)
    file.write_bytes(b"good text\n" * 200_000 + b"\0")
    assert "holds NUL bytes" in error(file)
    (tmp_path / "b.txt").write_text("good")
    assert left_out(tmp_path) == {"a.txt": "not text (it holds NUL bytes)"}
    file.write_bytes(b"good text\n" * 200_000)
    assert read(file) == ["good text\n" * 200_000]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.jsonl", b'{"text": "caf\xe9"}\n'),
        ("a.csv", b"caf\xe9\n"),
        ("a.json", b'{"text": "\xe9"}\n'),
    ],
)
def test_records_are_strict(tmp_path, name: str, line: bytes) -> None:
    start = {"a.jsonl": b'{"text": "x"}\n' * 2000, "a.csv": b"text\n" + b"x\n" * 2000}
    (tmp_path / name).write_bytes(start.get(name, b'{"text": "x"}\n' * 2000) + line)
    said = error(tmp_path)
    assert f"{tmp_path / name}" in said and "is not UTF-8; name its encoding with --enc" in said
    if name == "a.jsonl":
        assert f"{tmp_path / name}, line 2001: " in said
    assert read(tmp_path, encoding="latin-1")[-1] in ("café", "é")


def test_a_mark_wins_over_the_encoding_that_is_named(tmp_path) -> None:
    (tmp_path / "a.txt").write_bytes(NOVEL.encode("utf-8-sig"))
    (tmp_path / "b.txt").write_bytes(NOVEL.encode("cp1251"))
    assert read(tmp_path, encoding="cp1251") == [NOVEL, NOVEL]
    assert encoding_of(b"\xff\xfe\0\0", "cp1251") == ("utf-32-le", 4)


def test_utf_16_without_a_mark_is_left_out_with_advice_unless_it_is_named(tmp_path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("plain words".encode("utf-16-le"))
    assert "name the --encoding of UTF-16" in error(file)
    assert read(file, encoding="utf-16-le") == ["plain words"]
    write_jsonl(tmp_path / "b.jsonl", texts("x"))
    assert left_out(tmp_path) == {"a.txt": "not text (it holds NUL bytes)"}


def test_an_encoding_for_tables_alone_is_an_error(tmp_path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    assert "leave out --encoding" in error(tmp_path, encoding="cp1251")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.json"])
@pytest.mark.parametrize("encoding", ["utf-16", "UTF16", "utf-32", "u32"])
def test_a_missing_mark_is_said(tmp_path, name: str, encoding: str) -> None:
    (tmp_path / name).write_bytes('{"text": "wide"}'.encode(f"utf-{encoding[-2:]}-le"))
    said = error(tmp_path, encoding=encoding)
    width = encoding[-2:]
    assert f"{name}: has no byte-order mark" in said and f"utf-{width}-le or utf-{width}-be" in said


def test_a_mark_is_enough(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("wide", encoding="utf-16")
    (tmp_path / "b.txt").write_bytes(b"")
    assert read(tmp_path, encoding="utf-16") == ["wide"]
