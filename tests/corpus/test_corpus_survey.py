"""Splits and configurations of local data; settings that cannot apply."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.corpus.corpora import error, left_out, opened, read, texts, write_jsonl


def parquet(path, *words: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": words}), path)


def test_shards_of_the_hub_s_naming(tmp_path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        parquet(tmp_path / f"{name}.parquet", name)
    trains = ["train-00000-of-00002", "train-00001-of-00002"]
    assert read(tmp_path) == read(tmp_path, split="train") == trains
    assert read(tmp_path, split="test") == ["test-00000-of-00001"]
    assert "has no split 'validation' (there are: train, test)" in error(
        tmp_path, split="validation"
    )
    assert left_out(tmp_path) == {"test-00000-of-00001.parquet": "split test"}
    assert list(opened(tmp_path).summary())[0] == (
        f"dataset {tmp_path}: reads 2 files (2 parquet), split train of train, test"
    )


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["train/a.jsonl", "dev/a.jsonl"], None, ["train/a.jsonl"]),
        (["train/a.jsonl", "dev/a.jsonl"], "validation", ["dev/a.jsonl"]),
        (["x/test.csv", "x/my_train.csv"], "test", ["x/test.csv"]),
        (["valid.json.gz", "train.json.gz"], None, ["train.json.gz"]),
        (["data/en-00000-of-00001.jsonl", "data/de-00000-of-00001.jsonl"], "de", [1]),
        (["contest.jsonl", "latest.jsonl"], None, ["contest.jsonl", "latest.jsonl"]),
        (["eval.jsonl"], None, ["eval.jsonl"]),
    ],
)
def test_folders_of_records(tmp_path, names, split, expected) -> None:
    for name in names:
        if ".csv" in name:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(f"text\n{name}\n")
        else:
            write_jsonl(tmp_path / name, texts(name))
    expected = [names[i] if isinstance(i, int) else i for i in expected]
    assert read(tmp_path, split=split) == expected


def test_several_splits_and_none_is_train(tmp_path) -> None:
    for name in ("test.jsonl", "dev.jsonl"):
        write_jsonl(tmp_path / name, texts(name))
    assert "has several splits (test, validation); name one with --split" in error(tmp_path)


def test_who_is_in_no_split_is_left_out(tmp_path) -> None:
    for name in ("train.jsonl", "more.jsonl"):
        write_jsonl(tmp_path / name, texts(name))
    assert read(tmp_path) == ["train.jsonl"]
    assert left_out(tmp_path) == {"more.jsonl": "in no split, by its name"}


def test_plain_text_has_no_splits(tmp_path) -> None:
    for name in ("test_plan.txt", "notes.txt", "train/a.py", "test/b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    every = ["notes.txt", "test/b.py", "test_plan.txt", "train/a.py"]
    assert read(tmp_path) == read(tmp_path, split="train") == every
    assert "has no split 'test' (there are: train)" in error(tmp_path, split="test")
    assert "has no split 'test' (there are: train)" in error(tmp_path / "notes.txt", split="test")


def test_text_beside_records_of_another_split(tmp_path) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        write_jsonl(tmp_path / name, texts(name))
    (tmp_path / "a.txt").write_text("text")
    assert read(tmp_path) == ["text", "train.jsonl"]
    assert read(tmp_path, split="test") == ["test.jsonl"]
    assert left_out(tmp_path, split="test")["a.txt"] == "split train"


def test_a_single_file_is_train_or_what_its_name_says(tmp_path) -> None:
    file = write_jsonl(tmp_path / "test.jsonl", texts("x"))
    assert read(file) == read(file, split="train") == read(file, split="test") == ["x"]
    assert "has no split 'dev' (there are: train, test)" in error(file, split="dev")


def test_settings_that_cannot_apply(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert "is plain text, which has no field 'body'; leave out --text-field" in error(
        tmp_path, text_field="body"
    )
    assert "there is no revision 'main' of it; leave out --dataset-revision" in error(
        tmp_path, revision="main"
    )
    assert "has no configuration 'en' (there are: none, for it has no README.md" in error(
        tmp_path, configuration="en"
    )
    write_jsonl(tmp_path / "b.jsonl", texts("x"))
    assert "has no field 'body'" in error(tmp_path, text_field="body")


CARD = """---
configs:
- config_name: en
  data_files:
  - split: train
    path: "en/*.parquet"
  - split: test
    path: held/en.parquet
- config_name: de
  data_files: de/*.parquet
- config_name: fr
  data_dir: fr
---
# A data set
"""


@pytest.fixture
def languages(tmp_path):
    for name in ("en/a", "held/en", "de/a", "de/b", "fr/train", "fr/test", "stray"):
        parquet(tmp_path / f"{name}.parquet", name)
    (tmp_path / "README.md").write_text(CARD)
    return tmp_path


def test_configurations_of_the_card(languages) -> None:
    assert read(languages, configuration="en") == ["en/a"]
    assert read(languages, configuration="en", split="test") == ["held/en"]
    assert read(languages, configuration="de") == ["de/a", "de/b"]
    assert read(languages, configuration="fr") == ["fr/train"]
    assert read(languages, configuration="fr", split="test") == ["fr/test"]
    assert "has several configurations (en, de, fr); name one with --dataset-c" in error(languages)
    assert "has no configuration 'it' (there are: en, de, fr)" in error(
        languages, configuration="it"
    )
    assert "has no split 'dev' (there are: train, test)" in error(
        languages, configuration="en", split="dev"
    )
    reasons = left_out(languages, configuration="en")
    assert reasons["held/en.parquet"] == "split test"
    assert reasons["stray.parquet"] == "not in configuration en"
    summary = list(opened(languages, configuration="de").summary())
    assert summary[0].endswith("reads 2 files (2 parquet), configuration de")


@pytest.mark.parametrize("configuration", ["en", "de", "fr"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_configurations_are_read_as_datasets_does(languages, configuration, split) -> None:
    from datasets import load_dataset

    cache = str(languages.parent / f"cache-{languages.name}")
    whole = load_dataset(str(languages), configuration, cache_dir=cache)
    if split in whole:
        assert read(languages, configuration=configuration, split=split) == whole[split]["text"][:]
    else:
        assert "has no split" in error(languages, configuration=configuration, split=split)


def test_a_default_configuration(languages) -> None:
    card = CARD.replace("config_name: de\n", "config_name: de\n  default: true\n")
    (languages / "README.md").write_text(card)
    assert read(languages) == ["de/a", "de/b"]


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("held/en.parquet", "held/gone.parquet", "has no files for split test"),
        ("held/en.parquet", "../x.parquet", "has no files for split test"),
        ("  data_dir: fr", "  data_dir: fr\n  sep: ';'", "sets sep, which cpsae does not read by"),
        ("- config_name: de\n", "- name: de\n", "its YAML cannot be used"),
    ],
)
def test_cards_that_cannot_be_used(languages, old: str, new: str, part: str) -> None:
    (languages / "README.md").write_text(CARD.replace(old, new))
    name = "fr" if "sep" in new else "en"
    assert part in error(languages, configuration=name)


@pytest.mark.parametrize("url", ["https://example.invalid/a.jsonl", "hf://datasets/a/b/a.jsonl"])
def test_a_card_that_names_a_url_asks_nobody(tmp_path, url: str) -> None:
    write_jsonl(tmp_path / "a.jsonl", texts("one"))
    card = f'---\nconfigs:\n- config_name: en\n  data_files: "{url}"\n---\n'
    (tmp_path / "README.md").write_text(card)
    assert f"names {url}, which is not inside the folder" in error(tmp_path)
