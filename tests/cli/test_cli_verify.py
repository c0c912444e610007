"""`cpsae verify`: exit codes, the names of bad files, and repair."""

import json
import re

import pytest
from refusals import assert_refused
from tiny import chunks_of, content_of

from cpsae.store.bucket import Folder
from cpsae.store.metadata import read_manifest, write_manifest


def test_all_is_well(command, finished) -> None:
    before = content_of(finished)
    done = command("verify", finished)
    assert done.code == 0
    assert re.fullmatch(rf"{re.escape(str(finished))}: all \d+ files are well\n", done.out)
    assert content_of(finished) == before
    content = json.loads(command("verify", finished, "--json").out)
    assert (content["complete"], content["problems"], content["absent"]) == (True, [], [])
    # a chunk and its two statistics, five times, and the tokens of both parts
    assert content["files"] >= 5 * 3 + 2


def flip(file) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file) -> None:
    file.write_bytes(file.read_bytes()[:100])


DAMAGE = {"missing": lambda file: file.unlink(), "cut short": cut, "corrupt": flip}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named_and_repaired(command, extract_arguments, store, what) -> None:
    expected = chunks_of(store)
    DAMAGE[what](store / "activations/c/1/0")
    done = command("verify", store)
    assert done.code == 1
    key, _, text = done.out.splitlines()[0].partition(": ")
    assert key == "activations/c/1/0" and what in text
    assert re.search(r": 1 of \d+ files are damaged; --repair removes them", done.out)
    content = json.loads(command("verify", store, "--repair", "--json").out)
    assert [problem["key"] for problem in content["problems"]] == ["activations/c/1/0"]
    assert command("verify", store).code == 0
    assert command(*extract_arguments(store)).code == 0
    assert chunks_of(store) == expected


def test_damaged_statistics_are_computed_again(command, extract_arguments, store) -> None:
    expected = chunks_of(store)
    flip(store / "statistics/norms/c/2")
    assert command("verify", store, "--repair").code == 1
    assert command(*extract_arguments(store)).code == 0
    assert chunks_of(store) == expected


def test_an_unfinished_store_lacks_chunks_without_being_damaged(command, store) -> None:
    write_manifest(
        Folder(store), read_manifest(Folder(store)).model_copy(update={"complete": False})
    )
    (store / "activations/c/1/0").unlink()
    done = command("verify", store)
    assert done.code == 0 and "unfinished, 1 chunks to go" in done.out


def test_what_is_no_store(command, tmp_path) -> None:
    assert_refused(lambda: command("verify", tmp_path), tmp_path, 1, r"is no store \(it has no zar")
