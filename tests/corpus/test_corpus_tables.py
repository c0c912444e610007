"""Columns of Parquet and Arrow files, in every type that is text or a list."""

import gzip
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
