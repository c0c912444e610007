"""Whatever the text comes in: the tokens that end up in the store, and what is said on the way."""

import gzip
import json
from pathlib import Path

import pytest
from tiny import chunks_of, texts

from cpsae.errors import CorpusError
from cpsae.events import Event, Note
from cpsae.stages.extract import extract
from cpsae.store import open_store

SMALL = {"vectors": 300, "layer": 0}


def stored(path: Path) -> set[int]:
    store = open_store(path)
    tokens = set(store.training.tokens(range(store.training.part.n_contexts)).ravel().tolist())
    assert store.evaluation is not None
    held_out = store.evaluation.tokens(range(store.evaluation.part.n_contexts))
    return tokens | set(held_out.ravel().tolist())


def write_lines(file: Path, records: list[object]) -> Path:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def test_the_same_text_in_every_format_gives_the_same_store(settings, tmp_path) -> None:
    from datasets import Dataset

    documents = texts(100)
    dataset = Dataset.from_list([{"text": text} for text in documents])
    dataset.to_parquet(str(tmp_path / "a.parquet"))
    dataset.save_to_disk(str(tmp_path / "saved"), num_shards=3)
    (tmp_path / "a.json").write_text(json.dumps([{"text": text} for text in documents]))
    (tmp_path / "a.csv").write_text("text\n" + "\n".join(documents) + "\n")
    write_lines(tmp_path / "a.jsonl", [{"text": text} for text in documents])
    lines = (tmp_path / "a.jsonl").read_bytes()
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.jsonl").write_text(lines.decode(), encoding="utf-16")
    stores = {}
    for name in ("a.parquet", "saved", "a.json", "a.csv", "a.jsonl", "b.jsonl.gz", "c.jsonl"):
        place = str(tmp_path / f"{name}.zarr")
        stores[name] = chunks_of(
            extract(settings(**SMALL, dataset=str(tmp_path / name), store=place)).path
        )
    assert all(store == stores["a.jsonl"] for store in stores.values())


def test_data_that_is_tokenised_already(settings, gemma, tmp_path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gemma)
    ids = tokenizer(texts(100), add_special_tokens=False)["input_ids"]
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    write_lines(tmp_path / "ids.jsonl", [{"input_ids": [bos, *row, eos]} for row in ids])
    write_lines(tmp_path / "text.jsonl", [{"text": text} for text in texts(100)])
    one = extract(
        settings(
            **SMALL,
            dataset=str(tmp_path / "ids.jsonl"),
            ids_field="input_ids",
            store=str(tmp_path / "one"),
        )
    )
    two = extract(
        settings(**SMALL, dataset=str(tmp_path / "text.jsonl"), store=str(tmp_path / "two"))
    )
    assert chunks_of(one.path) == chunks_of(two.path)


def test_text_that_spells_special_tokens_stays_text(settings, tmp_path) -> None:
    spelled = [f"{text} begins with <bos> and <pad> ends <eos> so" for text in texts(100)]
    write_lines(tmp_path / "a.jsonl", [{"text": text} for text in spelled])
    chosen = settings(**SMALL, dataset=str(tmp_path / "a.jsonl"))
    path = Path(extract(chosen).path)
    tokens = open_store(path).training.tokens(range(10))
    assert 0 not in stored(path)  # <pad>
    assert (tokens[:, 1:] != 2).all()  # <bos>
    meant = settings(
        **SMALL, dataset=chosen.dataset, special_tokens=True, store=str(tmp_path / "m")
    )
    assert 0 in stored(Path(extract(meant).path))


def test_what_has_no_embedding_is_said_before_a_store_is_made(settings, gemma, tmp_path) -> None:
    import shutil

    from transformers import AutoTokenizer

    model = shutil.copytree(gemma, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["extra"])
    tokenizer.save_pretrained(model)
    documents = texts(100)
    documents[57] += " extra"
    write_lines(tmp_path / "a.jsonl", [{"text": text} for text in documents])
    chosen = settings(vectors=6000, layer=0, model=str(model), dataset=str(tmp_path / "a.jsonl"))
    with pytest.raises(
        CorpusError, match=r"'extra' \(id 304\), and the model has embeddings for the"
    ):
        extract(chosen)
    assert not Path(chosen.store).exists()


def test_what_is_read_and_left_out_is_said(settings, tmp_path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for split in ("train", "test"):
        write_lines(folder / f"{split}.jsonl", [{"text": text} for text in texts(100)])
    (folder / "README.md").write_text("about")
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    heard: list[Event] = []
    extract(settings(**SMALL, dataset=str(folder)), heard.append)
    said = [event.text for event in heard if isinstance(event, Note)]
    assert f"dataset {folder}: reads 1 file (1 jsonl), split train of train, test" in said
    assert (
        f"dataset {folder}: leaves out 3 files: README.md (it stands beside records), a.png (an "
        "image), test.jsonl (split test)"
    ) in said


def test_a_corpus_that_is_too_small_names_what_was_left_out(settings, tmp_path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    write_lines(folder / "a.jsonl", [{"text": text} for text in texts(3)])
    (folder / "b.jsonl.lz4").write_bytes(b"\x04\x22\x4d\x18")
    with pytest.raises(
        CorpusError, match=r"is too small: .* \(leaves out 1 file: b.jsonl.lz4 \(com"
    ):
        extract(settings(**SMALL, dataset=str(folder)))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"split": "test"}, "split: 'train', not 'test'"),
        ({"ids_field": "ids"}, "text_field: 'text', not None"),
        ({"special_tokens": True}, "special_tokens: None, not True"),
        ({"encoding": "cp1251"}, "encoding: None, not 'cp1251'"),
    ],
)
def test_another_way_of_reading_is_another_identity(settings, changes, part) -> None:
    from cpsae.errors import DifferentSettingsError

    extract(settings(**SMALL))
    with pytest.raises(DifferentSettingsError) as caught:
        extract(settings(**SMALL, **changes))
    assert any(part in text for text in caught.value.differences), caught.value.differences


def test_a_split_that_is_the_only_one_need_not_be_named_again(settings, tmp_path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    write_lines(folder / "test.jsonl", [{"text": text} for text in texts(100)])
    extract(settings(**SMALL, dataset=str(folder)))
    extract(settings(**SMALL, dataset=str(folder)))
    extract(settings(**SMALL, dataset=str(folder), split="test"))
