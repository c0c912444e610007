"""The field of a record, as text, token ids or messages."""

import pytest

from cpsae.corpus import Field
from cpsae.corpus.document import Chat, Ids
from cpsae.errors import CorpusError
from tests.corpus.corpora import error, read, write_jsonl

IDS = Field("ids", "ids")
CHAT = Field("messages", "messages")
TURNS = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]


def test_ids_and_messages_from_lines(tmp_path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"ids": [3, 4], "messages": TURNS}, {"ids": None}])
    assert read(file, field=IDS) == [[3, 4]]
    file = write_jsonl(tmp_path / "a.jsonl", [{"messages": TURNS}, {"messages": []}])
    assert read(file, field=CHAT) == [TURNS]


def test_messages_of_a_table_have_no_fields_that_are_null(tmp_path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    turns = [[{"role": "user", "content": "a", "tools": None}, {"role": "x", "content": None}]]
    pq.write_table(pa.table({"messages": turns}), tmp_path / "a.parquet")
    assert read(tmp_path, field=CHAT) == [
        [{"role": "user", "content": "a"}, {"role": "x", "content": None}]
    ]


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        (IDS, "1 2 3", "expected a list of token ids in the field 'ids', found a text"),
        (IDS, [1, 2.5], "expected token ids, which are whole numbers, found 2.5 among them"),
        (IDS, [1, None], "expected token ids, which are whole numbers, found null among them"),
        (
            IDS,
            [1, True],
            "expected token ids, which are whole numbers, found true or false among them",
        ),
        (IDS, [[1, 2]], "expected token ids, which are whole numbers, found a list among them"),
        (IDS, [1, 2**70], f"expected token ids, found {2**70}"),
        (CHAT, "Hello", "expected a list of messages, each with its role and content, in the fi"),
        (CHAT, ["Hello"], "expected messages with a role and a content, found a text"),
        (CHAT, [{"from": "human", "value": "x"}], "found one with from, value; rename its fields"),
        (Field(), [1, 2], "found a list; name another with --text-field (token ids with --ids-"),
        (Field(), {"a": 1}, "found an object; name another with --text-field, or mend the record"),
    ],
)
def test_another_kind_of_value_is_named(tmp_path, field: Field, value, part: str) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{field.name: value}])
    said = error(file, field=field)
    assert said.startswith(f"{file}, line 1: ") and part in said


def test_a_field_that_is_not_there_names_its_own_option() -> None:
    with pytest.raises(CorpusError, match=r"no field 'ids' \(there are: text\); .* --ids-field"):
        IDS.of_record({"text": "a"}, "here")
    with pytest.raises(CorpusError, match="--messages-field"):
        CHAT.of_record({"text": "a"}, "here")
    assert isinstance(IDS.of_value([1], "here"), Ids)
    assert isinstance(CHAT.of_value(TURNS, "here"), Chat)


def test_plain_text_beside_records_of_ids_is_left_out(tmp_path) -> None:
    from tests.corpus.corpora import left_out

    write_jsonl(tmp_path / "a.jsonl", [{"ids": [1]}])
    (tmp_path / "b.txt").write_text("words")
    assert read(tmp_path, field=IDS) == [[1]]
    assert left_out(tmp_path, field=IDS) == {"b.txt": "plain text has no field 'ids'"}
