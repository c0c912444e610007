"""docs/store-format.md is normative: its tables are the code's, its examples run."""

import re
import types
import typing
from pathlib import Path

import building
import numpy as np
import pytest

from cpsae import file_content, origins
from cpsae.config.base import Record
from cpsae.store import layout
from cpsae.store.bfloat16 import BFloat16

PAGE = (Path(__file__).parents[2] / "docs" / "store-format.md").read_text(encoding="utf-8")
RECORDS = [
    value
    for module in (layout, origins, file_content)
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, Record) and value is not Record
]
JSON_NAMES = {
    int: "integer",
    str: "string",
    bool: "boolean",
    type(None): "null",
    dict: "object",
    list: "array",
}


def table_under(heading: str) -> list[list[str]]:
    section = PAGE.split(f"\n{heading}\n", 1)[1]
    lines = [line for line in section.split("\n#", 1)[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def in_words(annotation) -> str:
    """A field's type as the page words it."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(in_words(choice) for choice in typing.get_args(annotation))
    if origin is typing.Literal:
        choices = typing.get_args(annotation)
        return " or ".join(f"`{c}`" if isinstance(c, str) else str(c) for c in choices)
    plain = origin or annotation
    return JSON_NAMES.get(plain, plain.__name__)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_of_every_record_is_in_the_page_and_no_other(record):
    rows = table_under(f"### {record.__name__}")
    documented = [(name.strip("`"), kind) for name, kind, _meaning in rows]
    fields = {name: in_words(field.annotation) for name, field in record.model_fields.items()}
    assert documented == list(fields.items())
    assert all(meaning for *_, meaning in rows)


def test_the_table_of_arrays_is_the_layout_s():
    manifest = building.manifest("bfloat16")
    shown = {
        "vectors": 70,
        "d": 8,
        "rows_per_chunk": 16,
        "chunks": 5,
        "contexts": 18,
        "tokens": 5,
    }
    documented = []
    for name, shape, chunk, dtype, codecs in table_under("## Arrays"):
        documented.append(
            layout.ArraySpec(
                name.strip("`"),
                eval(shape, {}, shown),
                eval(chunk, {}, shown),
                "bfloat16" if dtype == "`store_dtype`" else dtype,
                codecs == "bytes (little), zstd, crc32c",
            )
        )
        assert codecs in ("bytes (little), crc32c", "bytes (little), zstd, crc32c")
    assert documented == manifest.parts()[1].arrays()


def test_the_version_is_the_code_s():
    assert f"# The store format, version {layout.FORMAT_VERSION}\n" in PAGE


def test_the_examples_run_and_agree(tmp_path, monkeypatch):
    building.build(tmp_path / "acts.zarr", "bfloat16")
    monkeypatch.chdir(tmp_path)
    names: dict[str, typing.Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for block in blocks:
        exec(compile(block, "docs/store-format.md", "exec"), names)
    assert len(blocks) == 7
    expected = names["by_zarr"].view(np.uint16)
    assert BFloat16().to_native_dtype() == names["by_zarr"].dtype
    assert expected.shape == (64, 8)
    for name in ("by_tensorstore", "by_group"):
        np.testing.assert_array_equal(names[name].view(np.uint16), expected)
    np.testing.assert_array_equal(names["rows"].view(np.uint16), expected[:16])
    np.testing.assert_array_equal(
        names["tensor"].view(names["torch"].int16), expected[:16].view("i2")
    )
    assert names["first_contexts"].shape == (4, 5)
    assert (names["context"], names["position"]) == (3, 1)
    assert names["batch"].shape == (32, 8)
