"""The rule of splits, against that of `datasets` on real folders."""

import os
import random
from pathlib import Path

import pytest

from cpsae.corpus.dataset_splits import choose_split, split_files, split_of_saved
from cpsae.errors import CorpusError

WORDS = ["train", "test", "dev", "val", "valid", "training", "eval", "evaluation", "data", "x", "a"]
WORDS += ["contest", "latest", "part", "validation", "testing", "trains"]
SEPARATORS = ["-", ".", "_", " ", "0", "", "7", "/"]


def some_names(chance: random.Random) -> list[str]:
    names = set()
    for _ in range(chance.randint(1, 5)):
        words = [chance.choice(WORDS) for _ in range(chance.randint(1, 3))]
        name = "".join(word + chance.choice(SEPARATORS) for word in words).strip("/ ")
        name += chance.choice([".jsonl", ".parquet", ""])
        if chance.random() < 0.1:
            name = f"data/{chance.choice(WORDS)}-0000{chance.randint(0, 3)}-of-00004.jsonl"
        if not any(not part or part[0] in ". " or part[-1] == " " for part in name.split("/")):
            names.add(name)
    return sorted(names)


def splits_of_datasets(folder: Path) -> dict[str, list[str]]:
    from datasets.data_files import get_data_patterns, resolve_pattern

    found: dict[str, set[str]] = {}
    for split, patterns in get_data_patterns(str(folder)).items():
        for pattern in patterns:
            try:
                files = resolve_pattern(pattern, str(folder))
            except FileNotFoundError:
                continue
            found.setdefault(str(split), set()).update(os.path.relpath(f, folder) for f in files)
    return {split: sorted(files) for split, files in found.items()}


@pytest.mark.parametrize("seed", range(60))
def test_the_splits_are_those_of_datasets(tmp_path, seed: int) -> None:
    names = []
    for name in some_names(random.Random(seed)):
        file = tmp_path / name
        if any(parent.is_file() for parent in file.parents) or file.exists():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
        names.append(name)
    if names:
        assert split_files(names) == splits_of_datasets(tmp_path)


def test_which_split_is_read() -> None:
    assert choose_split(None, ["test"], "d") == "test"
    assert choose_split(None, ["test", "train"], "d") == "train"
    assert choose_split("test", ["test", "train"], "d") == "test"
    with pytest.raises(CorpusError, match=r"^d: has several splits \(a, b\); name one with --spl"):
        choose_split(None, ["a", "b"], "d")
    with pytest.raises(CorpusError, match=r"^d: has no split 'dev' \(there are: train\); name one"):
        choose_split("dev", ["train"], "d")


@pytest.mark.parametrize(
    ("state", "split"),
    [({}, "train"), ({"_split": None}, "train"), ({"_split": "test"}, "test")]
    + [({"_split": "validation[:10%]"}, "validation")],
)
def test_the_split_of_a_saved_folder(state: dict[str, object], split: str) -> None:
    assert split_of_saved(state) == split
