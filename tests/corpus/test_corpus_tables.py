"""Columns of Parquet and Arrow files, in every type that is text or a list."""

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from cpsae.corpus import Field
from tests.corpus.corpora import COMPRESS, error, read

VALUES = ["first", None, "zweiter – Ω", "", "first"]
TEXTS = ["first", "zweiter – Ω", "first"]
IDS = Field("input_ids", "ids")


def write(path, table: pa.Table, **options: Any) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path, **options)
    elif path.suffix == ".feather":
        feather.write_feather(table, path, compression="zstd")
    else:
        with pa.OSFile(str(path), "wb") as sink:
            new = pa.ipc.new_file if path.name.startswith("file") else pa.ipc.new_stream
            with new(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=2)


PLACES = ["a.parquet", "stream.arrow", "file.arrow", "a.feather"]


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize(
    "column",
    [
        pa.array(VALUES),
        pa.array(VALUES, pa.large_string()),
        pa.array(VALUES, pa.string_view()),
        pa.array(VALUES).dictionary_encode(),
        pa.array(VALUES, pa.large_string()).dictionary_encode(),
    ],
    ids=["string", "large", "view", "dictionary", "large dictionary"],
)
def test_every_type_of_text(tmp_path, name: str, column: pa.Array) -> None:
    if name == "a.feather" and column.type == pa.string_view():
        pytest.skip("Feather has no views")
    write(tmp_path / name, pa.table({"n": range(5), "text": column}))
    assert read(tmp_path) == TEXTS


@pytest.mark.parametrize("name", PLACES)
def test_a_column_of_nulls_holds_no_text(tmp_path, name: str) -> None:
    write(tmp_path / name, pa.table({"text": pa.nulls(3)}))
    assert "holds no text" in error(tmp_path)
    write(tmp_path / "b.parquet", pa.table({"text": ["some"]}))
    assert read(tmp_path) == ["some"]


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("kind", [pa.binary(), pa.int64(), pa.list_(pa.string())])
def test_what_is_no_text_is_named(tmp_path, name: str, kind: pa.DataType) -> None:
    value = {"binary": b"a", "int64": 1}.get(str(kind), ["a"])
    write(tmp_path / name, pa.table({"text": pa.array([value], kind)}))
    said = error(tmp_path)
    assert f"{tmp_path / name}: expected text in the field 'text', found {kind}" in said.replace(
        "element", "item"
    )
    assert "has no field 'body' (there are: text)" in error(tmp_path, text_field="body")


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.int32()),
        pa.large_list(pa.int64()),
        pa.list_(pa.uint16()),
        pa.list_(pa.int64(), 2),
    ],
)
def test_lists_of_ids(tmp_path, name: str, kind: pa.DataType) -> None:
    column = pa.array([[5, 6], None, [7, 8]], kind)
    write(tmp_path / name, pa.table({"input_ids": column, "text": ["a", "b", "c"]}))
    assert read(tmp_path, field=IDS) == [[5, 6], [7, 8]]


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", PLACES)
def test_compressed_as_a_whole(tmp_path, name: str, suffix: str) -> None:
    write(tmp_path / name, pa.table({"text": VALUES}))
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    (tmp_path / (name + suffix)).write_bytes(COMPRESS[suffix](data))
    assert read(tmp_path) == TEXTS


@pytest.mark.parametrize("name", PLACES)
def test_damaged_tables_are_one_line(tmp_path, name: str) -> None:
    file = tmp_path / name
    write(file, pa.table({"text": ["some text"] * 5000}))
    whole = file.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:20], b""):
        file.write_bytes(data)
        if name == "a.feather" and not data:
            continue  # an empty file of an unknown name is an empty text
        assert str(file) in error(file)


def test_many_batches_in_the_order_of_the_rows(tmp_path) -> None:
    rows = [f"row {number}" for number in range(3000)]
    write(tmp_path / "a.parquet", pa.table({"text": rows}), row_group_size=700)
    assert read(tmp_path) == rows
    write(tmp_path / "a.parquet", pa.table({"text": [*rows, 5 * "x"]}))
    assert read(tmp_path)[-1] == "xxxxx"


def test_a_parquet_file_is_not_read_as_gzip_would(tmp_path) -> None:
    (tmp_path / "a.parquet").write_bytes(gzip.compress(b"no table"))
    assert "is not a whole Parquet file" in error(tmp_path)


def cut_between_batches(path: Path, at: int) -> None:
    """An Arrow stream of three batches, and of it all up to the end of batch `at`."""
    schema, ends = pa.schema([("text", pa.string())]), []
    with path.open("wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for number in range(3):
            writer.write_batch(pa.record_batch({"text": [f"{number}"] * 50}, schema=schema))
            ends.append(file.tell())
    path.write_bytes(path.read_bytes()[: ends[at]])


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_arrow_stream_cut_between_two_batches(tmp_path, at: int) -> None:
    cut_between_batches(tmp_path / "a.arrow", at)
    assert "is no whole Arrow stream (it has no mark at its end)" in error(tmp_path)
    compressed = gzip.compress((tmp_path / "a.arrow").read_bytes())
    (tmp_path / "a.arrow").unlink()
    (tmp_path / "a.arrow.gz").write_bytes(compressed)
    assert "is no whole Arrow stream" in error(tmp_path)


def test_an_arrow_stream_of_the_old_form(tmp_path) -> None:
    table = pa.table({"text": ["one", "two"]})
    options = pa.ipc.IpcWriteOptions(use_legacy_format=True)
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema, options=options) as writer:
        writer.write_table(table)
    assert read(tmp_path) == ["one", "two"]
    (tmp_path / "a.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:-4])
    assert "is no whole Arrow stream" in error(tmp_path)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.csv", "a.tsv"])
def test_two_columns_of_one_name(tmp_path, name: str) -> None:
    table = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["text", "text"])
    if name.endswith("parquet"):
        pq.write_table(table, tmp_path / name)
    elif name.endswith("arrow"):
        with pa.ipc.new_file(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table)
    else:
        separator = "," if name.endswith("csv") else "\t"
        (tmp_path / name).write_text(f"text{separator}text\nx{separator}y\n")
    assert f"{name}: has two columns named 'text'; rename one" in error(tmp_path)
