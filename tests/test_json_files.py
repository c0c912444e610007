"""JSON files: objects alone, whole, and one line where one cannot be read."""

import pytest

from cpsae.errors import RunError, StoreError
from cpsae.json_files import parse_object, read_object, write_object

CONTENTS = [None, b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}', b'{"a": -1e999}']


def test_equal_contents_give_equal_bytes_and_no_nan(tmp_path):
    write_object(tmp_path / "a.json", {"b": 1, "a": None})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": null,\n  "b": 1\n}\n'
    assert read_object(tmp_path / "a.json", RunError, "") == {"a": None, "b": 1}
    with pytest.raises(ValueError, match="JSON"):
        write_object(tmp_path / "b.json", {"x": float("inf")})
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("error", [RunError, StoreError])
def test_what_is_no_object_is_one_line_of_the_callers_kind(tmp_path, content, error):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match="; use --fresh$") as caught:
        read_object(path, error, "use --fresh")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_folder_in_its_place(tmp_path):
    with pytest.raises(RunError, match="; look"):
        read_object(tmp_path, RunError, "look")


def test_parsing_says_what_was_found():
    with pytest.raises(ValueError, match="expected a JSON object, found list"):
        parse_object(b"[1]")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_an_editor_s_byte_order_mark_is_no_fault(tmp_path, encoding) -> None:
    path = tmp_path / "config.json"
    path.write_bytes('{"name": "caf\u00e9"}'.encode(encoding))
    assert read_object(path, RunError, "restore it") == {"name": "caf\u00e9"}
