"""Records in files of text, against Python's own json and csv."""

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpsae.corpus.records import json_records, why_no_records
from tests.corpus.corpora import error, left_out, read

RECORDS = [
    {"text": 'a {brace} and \\ "quote"\n', "n": 1},
    {"text": "два", "n": [{}]},
    {"text": "c"},
]
TEXTS = [record["text"] for record in RECORDS]


def stream(data: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(data))


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2, ensure_ascii=False),
        "\n\n  " + json.dumps(RECORDS) + "\n",
        "".join(json.dumps(record) + "\n" for record in RECORDS),
        "".join(json.dumps(record, indent=1) + "\n" for record in RECORDS),
        "\r\n".join(json.dumps(record) for record in RECORDS),
        " ".join(json.dumps(record) for record in RECORDS),
    ],
    ids=["list", "indented", "blanks", "lines", "indented objects", "CRLF", "one line"],
)
def test_json_in_every_form(tmp_path, content: str) -> None:
    (tmp_path / "d.json").write_text(content)
    assert read(tmp_path / "d.json") == TEXTS
    assert read(tmp_path) == TEXTS
    assert error(tmp_path, text_field="body").startswith(f"{tmp_path}/d.json, record 1: has no fie")


def test_one_object_is_a_record_if_it_has_the_field(tmp_path) -> None:
    (tmp_path / "d.json").write_text('{"text": "alone", "id": 3}')
    assert read(tmp_path / "d.json") == ["alone"]
    assert "one object with no field 'body' (there are: text, id)" in error(
        tmp_path / "d.json", text_field="body"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            '{"version": 1, "data": []}',
            "one object with no field 'text' (there are: version, data)",
        ),
        ("[1, 2, 3]", "a list of something else than objects"),
        ('["a", "b"]', "a list of something else than objects"),
        ('"a text"', "no JSON object or list"),
        ("{ // a comment\n}", "not JSON"),
    ],
)
def test_json_that_is_no_record(tmp_path, content: str, reason: str) -> None:
    file = tmp_path / "d.json"
    file.write_text(content)
    assert f"{file}: is {reason}; expected text, or records" in error(file)
    (tmp_path / "z.py").write_text("source")
    assert read(tmp_path) == [content, "source"]  # among texts it is one
    (tmp_path / "r.jsonl").write_text('{"text": "record"}\n')
    if reason == "not JSON":  # beside records it should have been some
        assert error(tmp_path) == f"{file}: is not JSON; mend or remove the file"
        return
    assert read(tmp_path) == ["record", "source"]
    assert left_out(tmp_path) == {"d.json": reason}


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('[{"text": "a"}, {"text": "b"', "record 2: is not JSON"),
        ('[{"text": "a"}, {"text": "b"}', "record 2: is followed by no comma"),
        ('[{"text": "a"} {"text": "b"}]', "record 1: is followed by no comma"),
        ('[{"text": "a"},', "ends in the middle of its list"),
        ('[{"text": "a"}] {"text": "b"}', "goes on behind its list"),
        ('{"text": "a"}\n{"text": "b"}]', "ends in the middle"),
        ('{"text": "a"}\nfree', "record 2: is not JSON"),
        ('[{"text": "a"}, "b"]', "record 2: expected an object with a field 'text', found a text"),
    ],
)
def test_damaged_json_is_an_error(tmp_path, content: str, part: str) -> None:
    (tmp_path / "d.json").write_text(content)
    assert part in error(tmp_path / "d.json") and part in error(tmp_path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    records=st.lists(st.dictionaries(st.text(), values, max_size=5), max_size=6),
    indent=st.sampled_from([None, 0, 3]),
    pieces=st.integers(1, 40),
    as_list=st.booleans(),
)
def test_json_equals_python_s_own(records, indent, pieces, as_list) -> None:
    text = json.dumps(records, indent=indent)
    if not as_list:
        text = "\n".join(json.dumps(record, indent=indent) for record in records)
    import cpsae.corpus.records as module

    before, module._CHARACTERS_AT_ONCE = module._CHARACTERS_AT_ONCE, pieces
    try:
        found = [record for _, record in json_records(stream(text.encode()), "d", None)]
        assert why_no_records(stream(text.encode()), "d", None, "x") == "" or len(records) == 1
    finally:
        module._CHARACTERS_AT_ONCE = before
    assert found == records


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            *[st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))] * 2
        ),
        min_size=1,
        max_size=6,
    ),
    tabs=st.booleans(),
    lines=st.sampled_from(["\n", "\r\n"]),
)
def test_tables_equal_python_s_own(tmp_path_factory, rows, tabs, lines) -> None:
    file = tmp_path_factory.mktemp("csv") / ("a.tsv" if tabs else "a.csv")
    with file.open("w", newline="", encoding="utf-8") as out:
        tab = "\t" if tabs else ","
        writer = csv.writer(out, delimiter=tab, lineterminator=lines, quoting=csv.QUOTE_ALL)
        writer.writerows([("id", "text"), *rows])
    expected = [text for _, text in rows if text and not text.isspace()]
    if expected:
        assert read(file) == expected
    else:
        assert "holds no text" in error(file)


def test_a_cell_may_be_long_and_hold_lines(tmp_path) -> None:
    cell = 'a "quoted" line\nand, another\n' * 20_000
    with (tmp_path / "a.csv").open("w", newline="") as out:
        csv.writer(out).writerows([["text"], [cell], [], ["b"]])
    assert read(tmp_path) == [cell, "b"]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("id,text\n1,a\n2,b,c\n", "line 3: has 3 cells, and the header 2"),
        ("id,text\n1,a\n2\n", "line 3: has 1 cells, and the header 2"),
        ('id,text\n1,a\n2,"b\n', "is no row of a table (unexpected end of data)"),
        ('id,text\n1,"a"b\n', "line 2: is no row of a table"),
        ("id;text\n1;a\n", "has no field 'text' (there are: id;text)"),
        ("id,body\n1,a\n", "has no field 'text' (there are: id, body)"),
    ],
)
def test_damaged_tables_are_an_error(tmp_path, content: str, part: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    assert part in error(tmp_path / "a.csv")


def test_json_lines_under_names_that_are_not_known(tmp_path) -> None:
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    for name in ("a.ndjson", "a.jsonlines", "shard-0001", "a.ldjson", "a.jl"):
        (tmp_path / name).write_text(lines)
        assert read(tmp_path / name) == TEXTS
    (tmp_path / "a.jl").write_text("{x for x in y}\n{no records}\n")
    assert read(tmp_path / "a.jl") == ["{x for x in y}\n{no records}\n"]
