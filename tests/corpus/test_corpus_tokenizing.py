"""Batches of documents of every form, in order, and importing without torch."""

import random
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from cpsae.corpus.document import Document, Ids, LongText
from cpsae.corpus.text_tokenizer import TextTokenizer
from cpsae.corpus.tokenizing import tokenise
from cpsae.corpus.windows import Sizes
from cpsae.events import Event, Note
from tests.corpus.tokenizers_of_families import FAMILIES, LINES, plain_ids

SMALL = Sizes(window=300, overlap=120)


def ids_of(documents: list[Document], name: str, sizes: Sizes = SMALL) -> list[list[int]]:
    found: list[list[int]] = []
    for batch in tokenise(documents, TextTokenizer(FAMILIES[name]()), sizes):
        for run in batch:
            if run.starts_document:
                found.append([])
            found[-1] += run.ids.tolist()
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_documents_of_any_length_in_their_order(name: str) -> None:
    chance = random.Random(5)
    texts = ["\n".join(chance.choices(LINES, k=chance.choice([1, 1, 2, 30]))) for _ in range(40)]
    expected = [plain_ids(FAMILIES[name](), text) for text in texts]
    assert ids_of(list(texts), name) == expected
    streamed: list[Document] = [
        LongText(iter([text[:70], text[70:71], text[71:]])) if number % 3 else text
        for number, text in enumerate(texts)
    ]
    assert ids_of(streamed, name) == expected
    assert ids_of(list(texts), name, Sizes()) == expected


def test_ids_between_texts_keep_their_place() -> None:
    documents: list[Document] = ["a", Ids(np.array([7, 8]), "x"), "b", "c", Ids(np.array([9]), "y")]
    texts = [plain_ids(FAMILIES["gpt2"](), text) for text in "abc"]
    assert ids_of(documents, "gpt2") == [texts[0], [7, 8], texts[1], texts[2], [9]]


def test_a_slow_tokenizer_takes_long_texts_whole() -> None:
    from transformers import ByT5Tokenizer

    text = "words and words " * 100
    runs = list(
        tokenise([LongText(iter([text[:900], text[900:]]))], TextTokenizer(ByT5Tokenizer()), SMALL)
    )
    [ids] = [run.ids for batch in runs for run in batch]
    assert ids.tolist() == [byte + 3 for byte in text.encode()]


def test_only_the_first_run_of_a_document_starts_it() -> None:
    tokenizer = TextTokenizer(FAMILIES["gpt2"]())
    batches = tokenise(["a", "line\n" * 50_000, "b"], tokenizer)
    runs = [run for batch in batches for run in batch]
    assert len(runs) > 4
    assert [run.starts_document for run in runs] == [True, True, *[False] * (len(runs) - 3), True]
    assert sum(len(run.ids) for run in runs) == 2 + len(
        plain_ids(FAMILIES["gpt2"](), "line\n" * 50_000)
    )


@pytest.mark.parametrize("length", [1, 50, 5000])
def test_batches_double_and_read_one_batch_ahead(length: int) -> None:
    read = 0

    def endless() -> Iterator[Document]:
        nonlocal read
        while True:
            read += length
            yield "x" * length

    batches = tokenise(endless(), TextTokenizer(FAMILIES["words"]()))
    most = 2048 * length
    for limit in (2**16, 2**17, 2**18, 2**18):
        before = read
        next(batches)
        assert read - before <= min(limit, most) + length


def test_importing_the_corpus_brings_no_torch() -> None:
    code = "import sys, cpsae.corpus; print({'torch', 'datasets', 'zarr'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_warning_of_a_stretch_that_cannot_be_cut(monkeypatch) -> None:
    monkeypatch.setattr("cpsae.corpus.tokenizing._MUCH_AT_ONCE", 2000)
    sizes = Sizes(window=500, overlap=100)
    heard: list[Event] = []
    tokenizer = TextTokenizer(FAMILIES["t5"]())
    for text in ("some words " * 400, "a" * 400, "a" * 4000, "a" * 5000):
        list(tokenise([text], tokenizer, sizes, heard.append))
        if text[1] == " " or len(text) == 400:
            assert not heard
    assert [isinstance(e, Note) and e.kind for e in heard] == ["warning"] * 2
    assert "tokenised at once" in str(heard[0])
