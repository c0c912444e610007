"""What is read in a folder and what is left out, each with its reason."""

import json
import os
from pathlib import Path

import pytest

from cpsae.corpus import Field
from tests.corpus.corpora import COMPRESS, error, left_out, opened, read, texts, write_jsonl


def saved(path: Path, *words: str, shards: int = 1) -> Path:
    from datasets import Dataset

    Dataset.from_list(texts(*words)).save_to_disk(str(path), num_shards=shards)
    return path


def test_a_folder_of_save_to_disk(tmp_path) -> None:
    saved(tmp_path / "d", "one", "two", "three", shards=3)
    assert read(tmp_path / "d") == ["one", "two", "three"]
    assert left_out(tmp_path / "d") == {
        "dataset_info.json": "metadata of datasets",
        "state.json": "metadata of datasets",
    }
    assert "has no field 'body' (there are: text)" in error(tmp_path / "d", text_field="body")


def test_a_saved_folder_s_own_list_counts(tmp_path) -> None:
    folder = saved(tmp_path / "d", "one", "two", shards=2)
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"].reverse()
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "cache-0123.arrow").write_bytes(b"stale")
    (folder / "notes.txt").write_text("not of the data set")
    assert read(folder) == ["two", "one"]
    assert left_out(folder)["cache-0123.arrow"] == "not named in its state.json"
    assert left_out(folder)["notes.txt"] == "not named in its state.json"
    next(folder.glob("data-*")).unlink()
    assert "which its state.json names; copy it whole" in error(folder)


def test_a_saved_dictionary_has_its_splits(tmp_path) -> None:
    from datasets import Dataset, DatasetDict

    parts = {"train": "a", "test": "b", "extra": "c"}
    parts = {split: Dataset.from_list(texts(word)) for split, word in parts.items()}
    DatasetDict(parts).save_to_disk(str(tmp_path / "d"))
    assert read(tmp_path / "d") == ["a"]
    assert read(tmp_path / "d", split="test") == ["b"]
    assert read(tmp_path / "d", split="extra") == ["c"]
    assert "has no split 'dev' (there are: train, extra, test)" in error(
        tmp_path / "d", split="dev"
    )
    assert read(tmp_path / "d" / "test") == ["b"]


def test_several_saved_folders_are_read_one_after_another(tmp_path) -> None:
    for name, word in (("b", "two"), ("a", "one"), ("c", "three")):
        saved(tmp_path / name, word)
    assert read(tmp_path) == ["one", "two", "three"]


def test_a_saved_folder_of_a_split(tmp_path) -> None:
    from datasets import Dataset, NamedSplit

    Dataset.from_list(texts("a"), split=NamedSplit("test")).save_to_disk(str(tmp_path / "d"))
    assert read(tmp_path / "d") == ["a"]
    assert opened(tmp_path / "d").split == "test"
    assert "has no split 'train' (there are: test)" in error(tmp_path / "d", split="train")


@pytest.mark.parametrize("shard", ["a.jsonl.zst", "a.jsonl", "a.parquet", "a.json", "a.csv.gz"])
@pytest.mark.parametrize(
    "beside", ["README.md", "readme", "LICENSE.txt", "CITATION.cff", "LICENCE"]
)
def test_beside_records_prose_about_them_is_left_out(tmp_path, shard: str, beside: str) -> None:
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    if shard == "a.parquet":
        pq.write_table(pa.table({"text": ["one"]}), tmp_path / shard)
    elif shard == "a.csv.gz":
        (tmp_path / shard).write_bytes(gzip.compress(b"text\none\n"))
    else:
        write_jsonl(tmp_path / shard, texts("one"))
    (tmp_path / beside).write_text("about")
    (tmp_path / "notes.txt").write_text("a text")
    assert read(tmp_path) == ["one", "a text"]
    assert left_out(tmp_path) == {beside: "it stands beside records"}
    (tmp_path / shard).unlink()
    assert sorted(read(tmp_path)) == ["a text", "about"]  # among texts it is one


def test_metadata_of_datasets_is_never_the_corpus(tmp_path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"description": "one"}])
    (tmp_path / "dataset_info.json").write_text('{"description": "of the data set"}')
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert read(tmp_path, text_field="description") == ["one"]
    assert set(left_out(tmp_path, text_field="description").values()) == {"metadata of datasets"}


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.zip", b"PK\x03\x04", "an archive: unpack it"),
        ("shards.tar.gz", b"\x1f\x8b\x08", "an archive: unpack it"),
        ("pictures", b"\x89PNG\r\n\x1a\n", "an image"),
        ("book.pdf", b"%PDF-1.7 text", "a PDF file: take its text out"),
        ("a.pkl", b"\x80\x04\x95", "a pickle, which is never read"),
        ("a.jsonl.lz4", b"\x04\x22\x4d\x18", "compressed with lz4: compress it with zstd or gzip"),
        ("a.txt", b"words \0 words", "not text (it holds NUL bytes)"),
        ("b.docx", b"PK\x03\x04", "an archive: unpack it"),
    ],
)
def test_what_is_no_text_is_left_out_with_its_reason(tmp_path, name, data, reason) -> None:
    (tmp_path / name).write_bytes(data)
    assert f"is {reason}; expected text" in error(tmp_path / name)
    assert f"(leaves out 1 file: {name} ({reason}))" in error(tmp_path)
    (tmp_path / "words.txt").write_text("words")
    assert read(tmp_path) == ["words"]
    assert left_out(tmp_path) == {name: reason}


def test_links_and_what_is_hidden(tmp_path) -> None:
    folder = tmp_path / "d"
    for name in (".git/config", "__pycache__/a.pyc", "sub/.hidden", "a.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.txt").write_text("far")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "b.txt").symlink_to(tmp_path / "elsewhere" / "b.txt")
    (folder / "dead.txt").symlink_to(tmp_path / "gone")
    os.mkfifo(folder / "pipe")
    assert read(folder) == ["a.txt", "far"]
    assert left_out(folder) == {
        ".git/": "hidden",
        "__pycache__/": "hidden",
        "sub/.hidden": "hidden",
        "linked/": "a link to a folder",
        "dead.txt": "a dead link",
        "pipe": "no file",
    }


def test_records_and_texts_in_one_folder_in_the_order_of_their_names(tmp_path) -> None:
    write_jsonl(tmp_path / "b.jsonl", texts("two", "three"))
    write_jsonl(tmp_path / "d" / "e.jsonl.gz", texts("five"))
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "c.csv").write_text("text\nfour\n")
    assert read(tmp_path) == ["one", "two", "three", "four", "five"]


def test_the_summary_says_what_is_read_and_left_out(tmp_path) -> None:
    for name in ("train.jsonl", "test.jsonl", "train-2.jsonl.gz"):
        write_jsonl(tmp_path / name, texts(name))
    (tmp_path / "notes.txt").write_text("a text")
    for name in ("README.md", "a.zip", ".gitattributes", "b.zip"):
        (tmp_path / name).write_bytes(b"PK\x03\x04")
    read_line, left_out_line = opened(tmp_path).summary()
    assert read_line == (
        f"dataset {tmp_path}: reads 3 files (2 jsonl, 1 text), split train of train, test"
    )
    assert left_out_line == (
        f"dataset {tmp_path}: leaves out 5 files: README.md (an archive: unpack it), a.zip (an "
        "archive: unpack it), b.zip (an archive: unpack it), and 2 more"
    )


def test_one_file_of_text_is_one_document(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert opened(tmp_path / "a.txt").is_one_document and opened(tmp_path).is_one_document
    write_jsonl(tmp_path / "b.jsonl", texts("x"))
    assert not opened(tmp_path).is_one_document
    assert not opened(tmp_path / "b.jsonl").is_one_document


def test_fields_are_looked_for_in_each_file(tmp_path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"body": "x"}])
    write_jsonl(tmp_path / "b.jsonl", texts("y"))
    assert f"{tmp_path}/a.jsonl, line 1: has no field 'text'" in error(tmp_path)
    assert f"{tmp_path}/b.jsonl, line 1: has no" in error(tmp_path, field=Field("body"))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet", "a.jsonl.zst", "a.bin"])
def test_a_pointer_in_place_of_a_file_is_never_text(tmp_path, name: str) -> None:
    write_jsonl(tmp_path / "other.jsonl", texts("one"))
    (tmp_path / name).write_bytes(POINTER)
    assert f"{name}: is a pointer of Git LFS in place of the file; fetch" in error(tmp_path)


def test_text_about_pointers_is_text(tmp_path) -> None:
    text = "version https://git-lfs.github.com/spec/v1 is the first line of a pointer\n"
    (tmp_path / "a.txt").write_text(text)
    assert read(tmp_path) == [text]


UNREAD = {
    "data.jsonl.lz4": b"\x04\x22\x4d\x18....",
    "rows.npy": b"\x93NUMPY\x01\x00v\x00{}",
    "shard.tar": b"",
    "rows.pkl": b"\x80\x04\x95....",
    "rows.h5": b"\x89HDF\r\n\x1a\n\0\0\0\0",
}


@pytest.mark.parametrize("name", UNREAD)
def test_prose_beside_data_that_cannot_be_read_is_no_corpus(tmp_path, name: str) -> None:
    for about in ("README.md", "LICENSE", "sub/dataset_info.json"):
        (tmp_path / about).parent.mkdir(exist_ok=True)
        (tmp_path / about).write_text("about the data")
    assert len(read(tmp_path)) == 3
    (tmp_path / name).write_bytes(UNREAD[name])
    said = error(tmp_path)
    assert "holds no text" in said and "README.md (it speaks of what cannot be read)" in said
    assert "leaves out 4 files" in said
    (tmp_path / "notes.txt").write_text("text of its own")
    assert len(read(tmp_path)) == 4


def test_a_wide_encoding_s_zero_bytes_are_text(tmp_path) -> None:
    for name in ("README.md", "a.txt"):
        (tmp_path / name).write_text("some text", encoding="utf-16-le")
    assert read(tmp_path, encoding="utf-16-le") == ["some text"] * 2


@pytest.mark.parametrize("name", ["data.dump", "data", "data.jl", "data.zst", "data.txt.part"])
def test_records_of_long_lines_under_any_name(tmp_path, name: str) -> None:
    words = [f"{number} " + "word " * 2000 for number in range(3)]
    lines = b"".join(json.dumps({"id": 1, "text": text}).encode() + b"\n" for text in words)
    data = COMPRESS[".zst"](lines) if name.endswith(".zst") else lines
    (tmp_path / name).write_bytes(data)
    assert read(tmp_path) == words
    one = json.dumps({"text": "only"}).encode()
    (tmp_path / name).write_bytes(COMPRESS[".zst"](one) if name.endswith(".zst") else one)
    assert read(tmp_path) == ["only"]


def test_a_first_line_longer_than_is_looked_at(tmp_path) -> None:
    text = "long " * 2**19
    (tmp_path / "data").write_text(json.dumps({"text": text}) + "\n" + json.dumps({"text": "b"}))
    assert read(tmp_path) == [text, "b"]


def test_deep_nesting_is_no_end_of_it(tmp_path) -> None:
    deep = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"
    (tmp_path / "data").write_text(deep + '\n{"text": "x"}\n')
    (tmp_path / "state.json").write_text("[" * 100_000)
    write_jsonl(tmp_path / "a.jsonl", texts("one"))
    assert read(tmp_path) == ["one", deep + '\n{"text": "x"}\n']


def test_a_damaged_json_beside_records_is_an_error(tmp_path) -> None:
    write_jsonl(tmp_path / "a.json", texts("one"))
    for damaged in ('{"text": "cut he', '{"text": "a\x01"}\n{"text": "b"}', "<html>404</html>"):
        (tmp_path / "b.json").write_text(damaged)
        assert error(tmp_path) == f"{tmp_path / 'b.json'}: is not JSON; mend or remove the file"


@pytest.mark.parametrize("content", ['{"data": [{"text": "a"}]}', '["a", "b"]', '{"text": "cut he'])
def test_json_of_no_records_alone_is_no_corpus(tmp_path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    (tmp_path / "README.md").write_text("about it")
    assert "holds no text" in error(tmp_path) and "a.json (" in error(tmp_path)
    (tmp_path / "main.py").write_text("source")  # among sources it is one
    assert len(read(tmp_path)) == 3
