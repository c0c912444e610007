"""Reading documents, telling corpora apart, and the text of every error."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cpsae.config import ExtractSettings
from cpsae.corpus import Corpus, Field, documents, identity
from cpsae.corpus.hub import explain
from cpsae.errors import CorpusError

TEXTS = ["first\nof three", "zweiter – Ω", "third"]


def corpus_at(path: Path | str, text_field: str = "text", **settings: str) -> Corpus:
    return Corpus(str(path), field=Field(text_field), **settings)  # type: ignore[arg-type]


def read(path: Path | str, **settings: str) -> list[str]:
    found = []
    for document in documents(corpus_at(path, **settings)):
        found.append(document if isinstance(document, str) else "".join(document.pieces))
    return found


def error(path: Path | str, **settings: str) -> str:
    with pytest.raises(CorpusError) as caught:
        read(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_jsonl(path: Path, records: list[object]) -> Path:
    text = "\n".join(json.dumps(record) for record in records) + "\n"
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_settings_say_what_the_corpus_is() -> None:
    settings = ExtractSettings(
        dataset="a/b", dataset_revision="r", split="test", text_field="t", trust_remote_code=True
    )
    assert Corpus.from_settings(settings) == Corpus("a/b", "r", "test", Field("t"), True)
    settings = ExtractSettings(
        dataset="a/b", dataset_config="c", ids_field="input_ids", encoding="cp1251"
    )
    asked = Corpus("a/b", field=Field("input_ids", "ids"), configuration="c", encoding="cp1251")
    assert Corpus.from_settings(settings) == asked


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("monology/pile-uncopyrighted", False),
        ("wikitext", False),
        ("hf://datasets/a/b", False),
        ("/nowhere", True),
        ("./a/b", True),
        ("~/texts", True),
        ("a/b/c", True),
        ("texts.jsonl", True),
        ("texts.jsonl.gz", True),
        ("my/texts.parquet", True),
        ("main.py", True),
    ],
)
def test_what_looks_like_a_path_is_local(name: str, local: bool) -> None:
    assert Corpus(name).is_local == local


def test_an_existing_folder_is_local_whatever_its_name(tmp_path, monkeypatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "owner" / "name" / "a.txt").write_text("here")
    monkeypatch.chdir(tmp_path)
    assert read("owner/name") == ["here"]


def test_jsonl_gzip_and_parquet_give_the_same(tmp_path) -> None:
    records = [{"id": i, "text": text} for i, text in enumerate(TEXTS)]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet", row_group_size=2)
    for file in (
        write_jsonl(tmp_path / "a.jsonl", records),  # type: ignore[arg-type]
        write_jsonl(tmp_path / "a.jsonl.gz", records),  # type: ignore[arg-type]
        tmp_path / "a.parquet",
    ):
        assert read(file) == TEXTS
        assert identity(Corpus(str(file)))["dataset"]["files"] == 1


def test_parquet_takes_dictionaries_nulls_and_other_fields(tmp_path) -> None:
    column = pa.array(["x", None, "y", "x"]).dictionary_encode()
    pq.write_table(pa.table({"n": [1, 2, 3, 4], "content": column}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", text_field="content") == ["x", "y", "x"]


def test_jsonl_skips_blank_lines_and_blank_texts(tmp_path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(
        b'\xef\xbb\xbf{"text": "a"}\n\n  \n{"text": ""}\n{"text": null}\n{"text": "b"}'
    )
    assert read(file) == ["a", "b"]


def test_half_a_surrogate_pair_is_replaced(tmp_path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "x\\ud83dy \\ud83d\\ude00"}\n')
    assert read(file) == ["x\ufffdy \U0001f600"]


def test_a_folder_is_walked_in_sorted_order(tmp_path) -> None:
    for name in ("b.py", "a/z.md", "a/y.rs", ".git/no.txt", "__pycache__/no.py", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "a" / "image.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbfmarked \xc3\xa9\r\n")
    write_jsonl(tmp_path / "d.jsonl", [{"text": "one"}, {"text": "two"}])
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert read(tmp_path) == ["a/y.rs", "a/z.md", "b.py", "marked \xe9\r\n", "one", "two"]


def test_reading_streams(tmp_path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "good"}] * 2000)
    with file.open("a") as lines:
        lines.write("{broken")
    stream = documents(Corpus(str(file)))
    assert [next(stream) for _ in range(1000)] == ["good"] * 1000


def test_identity_is_of_names_and_sizes_not_of_the_path(tmp_path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "sub" / "a.txt").write_text("some text")
        (tmp_path / folder / "b.txt").write_text("more")
    first, second = (identity(Corpus(str(tmp_path / name))) for name in ("one", "two"))
    assert first == second
    assert first["dataset"]["files"] == 2 and first["text_field"] == "text"
    (tmp_path / "two" / "b.txt").write_text("longer")
    assert identity(Corpus(str(tmp_path / "two"))) != first
    (tmp_path / "two" / "b.txt").write_text("more")
    assert identity(Corpus(str(tmp_path / "two"))) == first
    (tmp_path / "two" / "b.txt").rename(tmp_path / "two" / "c.txt")
    assert identity(Corpus(str(tmp_path / "two"))) != first


def test_identity_of_a_hub_data_set_asks_nobody() -> None:
    assert identity(Corpus("a/b", "r", "test", Field("t"))) == {
        "dataset": "a/b",
        "split": "test",
        "text_field": "t",
        "revision": "r",
    }


def test_a_missing_path(tmp_path) -> None:
    expected = "there is no such file or folder; check the path"
    assert expected in error(tmp_path / "gone.jsonl")
    assert str(tmp_path / "gone.jsonl") in error(tmp_path / "gone.jsonl")
    with pytest.raises(CorpusError, match="no such file or folder"):
        identity(Corpus(str(tmp_path / "gone")))


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (b'{"text": "a"', ["is not JSON", 'like {"text": "\u2026"}', "mend or remove the line"]),
        (b'{"text": "\xff"}', ["is not UTF-8", "--encoding"]),
        (b'"a text"', ["expected an object with a field 'text', found a text"]),
        (b'{"body": "a", "id": 1}', ["no field 'text' (there are: body, id)", "--text-field"]),
        (b'{"text": ["a"]}', ["expected text in the field 'text', found a list"]),
        (b'{"text": 5}', ["found a number", "--text-field"]),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line: bytes, parts: list[str]) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "fine"}\n\n' + line + b"\n")
    text = error(file)
    assert text.startswith(f"{file}, line 3: ")
    assert all(part in text for part in parts)


def test_a_folder_names_the_file_inside(tmp_path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("{")
    assert error(tmp_path).startswith(f"{file}, line 1: is not JSON")


def test_parquet_errors(tmp_path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": [1], "body": ["a"]}), file)
    assert "no field 'text' (there are: n, body)" in error(file)
    assert "expected text in the field 'n', found int64" in error(file, text_field="n")
    file.write_bytes(file.read_bytes()[:-6])
    assert f"{file}: is not a whole Parquet file" in error(file, text_field="body")


def test_a_gzip_file_cut_short(tmp_path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl.gz", [{"text": str(i)} for i in range(500)])
    file.write_bytes(file.read_bytes()[:-20])
    assert f"{file}: cannot be read" in error(file)
    file.write_bytes(b"no gzip")
    assert f"{file}: cannot be read" in error(file)


def test_a_file_that_is_no_text(tmp_path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"\0\1\2")
    assert "is not text (it holds NUL bytes)" in error(file)


@pytest.mark.parametrize("content", ["", " \n\t\n"])
def test_no_text_at_all(tmp_path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    assert error(tmp_path) == (
        f"dataset {tmp_path}: holds no text; expected at least one document that is not blank"
    )
    assert "holds no text" in error(tmp_path / "a.txt")


def test_an_empty_folder(tmp_path) -> None:
    assert "holds no text" in error(tmp_path)


def test_a_hub_name_offline_is_one_line() -> None:
    # in a process of its own: the hub's libraries read the variables when they are imported
    code = (
        "import os; os.environ |= {'HF_HUB_OFFLINE': '1', 'HF_DATASETS_OFFLINE': '1'}\n"
        "from cpsae.corpus import Corpus, documents\n"
        "try: next(documents(Corpus('nobody/no-such-data-set')))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "CorpusError dataset nobody/no-such-data-set: is no local path, and the hub cannot be "
        "reached; check the network and HF_HUB_OFFLINE, or give a local file or folder\n"
    )


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ("Dataset 'a/b' is a gated dataset on the Hub. You must…", ["gated", "`hf auth login`"]),
        ("Revision 'r' doesn't exist for dataset 'a/b' on the Hub.", ["no revision 'r'"]),
        ("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed.", ["no data set on the"]),
    ],
)
def test_what_datasets_says_is_explained(message: str, parts: list[str]) -> None:
    from datasets.exceptions import DatasetNotFoundError

    text = explain(DatasetNotFoundError(message), Corpus("a/b", "r"))
    assert all(part in text for part in parts)


def test_other_failures_of_the_hub_are_explained() -> None:
    corpus = Corpus("a/b", split="dev")
    splits = ValueError("Bad split: dev. Available splits: ['train', 'test']")
    assert "no split 'dev' (there are: train, test)" in explain(splits, corpus)
    assert "hub cannot be reached" in explain(ConnectionError("Couldn't reach"), corpus)
    script = RuntimeError("Dataset scripts are no longer supported, but found b.py")
    assert "needs code that its repository ships" in explain(script, corpus)
    other = ValueError("Something\nelse")
    assert "ValueError: Something else" in explain(other, corpus)


def test_the_configurations_of_the_hub_are_explained() -> None:
    several = "Config name is missing.\nPlease pick one among the available configs: ['x', 'y']"
    assert explain(ValueError(several), Corpus("a/b")) == (
        "has several configurations (x, y); name one with --dataset-config"
    )
    missing = ValueError("BuilderConfig 'z' not found. Available: ['x', 'y']")
    assert explain(missing, Corpus("a/b", configuration="z")) == (
        "has no configuration 'z' (there are: x, y); name one with --dataset-config"
    )


def test_hub_records_are_streamed_and_checked(monkeypatch) -> None:
    import datasets

    asked = {}

    def load_dataset(name: str, **arguments: object) -> list[dict[str, object]]:
        asked.update(arguments, name=name)
        return [{"text": "a"}, {"text": None}, {"body": "b"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    stream = documents(Corpus("a/b", "r", "test"))
    assert next(stream) == "a"
    assert asked == {"name": "a/b", "revision": "r", "split": "test", "streaming": True}
    with pytest.raises(CorpusError, match=r"a/b, record 3: has no field 'text' \(there are: body"):
        next(stream)


def test_a_pipe_is_no_corpus(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert "is no regular file, and can be read only once" in error(tmp_path / "pipe.txt")
