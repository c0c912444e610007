"""Packing and splitting against a plain re-implementation in lists."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cpsae.corpus import PackedTokens, PackingPlan, SpecialTokens, find_special_tokens, pack
from cpsae.corpus.document import Ids, LongText
from cpsae.corpus.packing import TooSmallError
from cpsae.corpus.split import most_vectors
from cpsae.errors import CorpusError
from cpsae.events import Advanced, Event, Finished, Started
from cpsae.held_out import held_out_rows
from tests.corpus.plain_packing import plain_split, same_contexts

WORDS = 5000
BOS, EOS = WORDS, WORDS + 1


def word_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """The word `w17` is token 17."""
    vocabulary = {f"w{i}": i for i in range(WORDS)} | {"<bos>": BOS, "<eos>": EOS}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


BOTH = word_tokenizer(bos_token="<bos>", eos_token="<eos>")
NEITHER = word_tokenizer()


def numbered(lengths: list[int]) -> list[list[int]]:
    """Documents of these lengths, no token twice."""
    tokens = iter(range(WORDS))
    return [[next(tokens) for _ in range(length)] for length in lengths]


def text(document: list[int]) -> str:
    return " ".join(f"w{token}" for token in document)


def run(lengths: list[int], plan: PackingPlan, tokenizer=BOTH) -> PackedTokens:
    return pack(lambda: iter(map(text, numbered(lengths))), tokenizer, plan)


def error(lengths: list[int], plan: PackingPlan, tokenizer=BOTH) -> str:
    with pytest.raises(CorpusError) as caught:
        run(lengths, plan, tokenizer)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def owner(lengths: list[int]) -> np.ndarray:
    """Token -> number of its document; -1 for BOS and EOS."""
    owners = np.full(WORDS + 2, -1)
    owners[: sum(lengths)] = np.repeat(np.arange(len(lengths)), lengths)
    return owners


def test_sizes_of_the_paper() -> None:
    plan = PackingPlan(tokens=128, vectors=10_000_000)
    assert (plan.rows_per_context, plan.training_contexts) == (127, 78_741)
    assert (plan.evaluation_rows, plan.evaluation_contexts) == (100_000, 788)
    assert PackingPlan(128, 10_000_000, keep_bos=True).training_contexts == 78_125


@pytest.mark.parametrize("vectors", [1, 9, 10, 11, 199_999, 200_000, 2_000_001, 10**7, 10**9])
def test_held_out_rows_are_the_store_s(vectors: int) -> None:
    assert PackingPlan(128, vectors).evaluation_rows == max(1, held_out_rows(vectors))


@pytest.mark.parametrize("keep_bos", [False, True])
@pytest.mark.parametrize(
    ("special", "bos", "eos"),
    [
        ({"bos_token": "<bos>", "eos_token": "<eos>"}, BOS, EOS),
        ({"cls_token": "<bos>", "sep_token": "<eos>"}, BOS, EOS),
        ({"eos_token": "<eos>"}, None, EOS),
        ({"bos_token": "<bos>"}, BOS, None),
        ({}, None, None),
    ],
)
def test_equal_to_the_plain_rule(special, bos, eos, keep_bos) -> None:
    tokenizer = word_tokenizer(**special)
    assert find_special_tokens(tokenizer) == SpecialTokens(bos, eos)
    lengths = [7, 30, 1, 90, 4, 4, 61, 200, 12, 33, 5, 80, 41, 9, 100, 3]
    plan = PackingPlan(tokens=6, vectors=301, keep_bos=keep_bos, seed=3)
    packed = run(lengths, plan, tokenizer)
    expected = plain_split(numbered(lengths), plan, bos, eos)
    assert expected is not None
    assert same_contexts(packed.training, expected[0])
    assert same_contexts(packed.evaluation, expected[1])
    assert packed.training.dtype == packed.evaluation.dtype == np.int32
    assert packed.training.shape == (math.ceil(301 / (6 if keep_bos else 5)), 6)
    assert (packed.bos_token_id, packed.separator_token_id) == (bos, eos)
    if bos is not None:
        assert (packed.training[:, 0] == bos).all() and (packed.evaluation[:, 0] == bos).all()


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=25),
    tokens=st.integers(2, 7),
    vectors=st.integers(1, 400),
    with_special=st.booleans(),
)
def test_the_split_holds_its_promises(lengths, tokens, vectors, with_special) -> None:
    tokenizer, bos, eos = (BOTH, BOS, EOS) if with_special else (NEITHER, None, None)
    plan = PackingPlan(tokens, vectors)
    expected = plain_split(numbered(lengths), plan, bos, eos)
    if expected is None:
        error(lengths, plan, tokenizer)
        return
    packed = run(lengths, plan, tokenizer)
    assert same_contexts(packed.training, expected[0])
    assert same_contexts(packed.evaluation, expected[1])
    assert len(packed.training) == plan.training_contexts
    assert len(packed.evaluation) == plan.evaluation_contexts
    parts = [
        set(owner(lengths)[part].ravel()) - {-1} for part in (packed.training, packed.evaluation)
    ]
    if packed.split == "documents":
        assert not parts[0] & parts[1]
    else:
        assert sum(length > 0 for length in lengths) == 1
        lowest_held_out = packed.evaluation[:, int(with_special) :].min()
        piece = tokens - int(with_special)
        assert lowest_held_out - packed.training[packed.training < WORDS].max() == piece + 1


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 120), min_size=1, max_size=12), tokens=st.integers(2, 9))
def test_what_an_error_suggests_can_be_packed(lengths, tokens) -> None:
    plan = PackingPlan(tokens, vectors=10_000)
    special = SpecialTokens(BOS, EOS)
    suggested = most_vectors(plan, special, lengths)
    text = error(lengths, plan)
    count = "one document" if len(lengths) == 1 else f"{len(lengths):,} documents"
    assert f"its {sum(lengths):,} tokens in {count}" in text
    if suggested:
        assert f"use --vectors {suggested}," in text
        run(lengths, PackingPlan(tokens, suggested))
    else:
        error(lengths, PackingPlan(tokens, 1))


def test_evaluation_takes_eight_contexts_of_a_document() -> None:
    plan = PackingPlan(tokens=5, vectors=800)
    lengths = [400, *[80] * 20]
    packed = run(lengths, plan)
    owners = owner(lengths)[packed.evaluation]
    for document in set(owners.ravel()) - {-1}:
        assert (owners == document).sum() <= 8 * 4
    assert len(set(owners.ravel()) - {-1}) == 3


def test_the_limit_is_lifted_where_it_leaves_a_part_unfilled() -> None:
    plan = PackingPlan(tokens=5, vectors=800)  # 200 and 20 contexts of 4 tokens of text
    lengths = [820, 90]
    packed = run(lengths, plan)
    owners = owner(lengths)
    assert set(owners[packed.evaluation].ravel()) == {-1, 1}
    assert len(packed.evaluation) == 20 and packed.split == "documents"


def test_one_document_is_cut_by_position() -> None:
    plan = PackingPlan(tokens=5, vectors=80)  # 20 contexts, 2 held out, 1 between them: 92 tokens
    packed = run([0, 92, 0], plan)
    assert packed.split == "position" and packed.documents == 1
    held_out = packed.evaluation[:, 1:]
    assert sorted(packed.training[:, 1:].ravel()) == list(range(80))
    assert sorted(held_out.ravel()) == list(range(84, 92))
    assert "give at most 76 vectors" in error([91], plan)


def test_too_few_tokens_say_what_there_is() -> None:
    plan = PackingPlan(tokens=5, vectors=1_000_000)
    assert error([50, 60, 70], plan) == (
        "the corpus is too small: its 180 tokens in 3 documents give at most 120 vectors beside "
        "the held-out part, and 1,000,000 were asked for; use --vectors 120, or give more text"
    )
    assert error([3, 2], plan) == (
        "the corpus is too small: its 5 tokens in 2 documents give no training and held-out "
        "context of 4 tokens each, and 1,000,000 vectors were asked for; give more text, or fewer "
        "--tokens"
    )
    with pytest.raises(CorpusError, match="^dataset x is too small"):
        pack(lambda: iter(["w1 w2"]), BOTH, plan, name="dataset x")


def test_separators_count_in_what_a_corpus_of_short_documents_can_give() -> None:
    # 100 tokens and 98 separators are 49 contexts: 5 are held out, by the documents' rule
    assert "its 100 tokens in 100 documents give at most 176 vectors" in error(
        [1] * 100, PackingPlan(tokens=5, vectors=1000)
    )
    with pytest.raises(CorpusError):
        run([1] * 100, PackingPlan(tokens=5, vectors=180))


def test_an_absurd_number_of_vectors_takes_no_memory() -> None:
    assert "use --vectors 120," in error([50, 60, 70], PackingPlan(5, 10**18))


def test_reading_stops_when_both_parts_are_full() -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "w1 w2 w3 w4 " * 25

    packed = pack(endless, BOTH, PackingPlan(tokens=17, vectors=1600))
    assert packed.documents == 18  # 110 contexts of 16, documents of 101 tokens
    assert read <= 2**16 / 300 + 1  # the first batch


def test_the_same_input_gives_the_same_bytes_and_a_seed_another_order() -> None:
    lengths = [300, 200, 100, 50]
    first, again, other = (
        run(lengths, PackingPlan(tokens=5, vectors=400, seed=seed)) for seed in (0, 0, 1)
    )
    assert first.training.tobytes() == again.training.tobytes()
    assert first.evaluation.tobytes() == again.evaluation.tobytes()
    assert first.training.tobytes() != other.training.tobytes()
    assert same_contexts(first.training, other.training.tolist())
    order = first.training[:, 1].tolist()
    assert order != sorted(order)


def test_progress_counts_tokens_up_to_the_need() -> None:
    heard: list[Event] = []
    documents = ["w1 w2 w3 w4 " * 300] * 120
    pack(
        lambda: iter(documents),
        BOTH,
        PackingPlan(tokens=101, vectors=100_000),
        heard.append,
    )
    assert heard[0] == Started("tokenise", 110_000, "token", kept=False)
    done = [event.done for event in heard if isinstance(event, Advanced)]
    assert done == sorted(done) and len(done) > 2
    assert done[-1] == 110_000
    assert heard[-1] == Finished()


def test_a_corpus_that_changes_between_two_readings_is_an_error() -> None:
    readings = iter([[text(list(range(92)))], ["w1 w2"]])
    with pytest.raises(CorpusError, match="changed while it was read"):
        pack(lambda: iter(next(readings)), BOTH, PackingPlan(5, 80))


def test_a_document_known_to_be_the_only_one_is_read_once_and_no_further() -> None:
    read = 0

    def readings() -> Iterator[LongText]:
        def pieces() -> Iterator[str]:
            nonlocal read
            for number in range(WORDS * 200):
                read += 1
                yield f"w{number % WORDS} "

        yield LongText(pieces())

    plan = PackingPlan(tokens=5, vectors=800)
    once = pack(readings, BOTH, plan, one_document=True)
    assert read < 3 * 2**16 / 4  # two windows, and what their pieces hold beyond them
    whole = pack(lambda: iter(["".join(f"w{i} " for i in range(WORDS))]), BOTH, plan)
    assert once.split == whole.split == "position" and once.documents == 1
    assert once.training.tobytes() == whole.training.tobytes()
    assert once.evaluation.tobytes() == whole.evaluation.tobytes()


@pytest.mark.parametrize("one_document", [True, False])
def test_the_only_document_may_be_too_small(one_document: bool) -> None:
    for length, part in ((91, "use --vectors 76,"), (3, "give no training and held-out context")):
        with pytest.raises(TooSmallError, match=f"its {length} tokens in one document .*{part}"):
            words = text(list(range(length)))
            pack(
                partial(iter, [words]),
                BOTH,
                PackingPlan(5, 80),
                one_document=one_document,
            )


def test_documents_of_ids_are_packed_as_their_text_would_be() -> None:
    lengths = [7, 30, 1, 90, 4, 4, 61, 200]
    plan = PackingPlan(tokens=6, vectors=201, seed=3)
    expected = run(lengths, plan)

    def ids(framed: bool) -> Iterator[Ids]:
        for document in numbered(lengths):
            yield Ids(np.array([BOS, *document, EOS] if framed else document), "here")

    for framed in (True, False):
        packed = pack(partial(ids, framed), BOTH, plan)
        assert packed.training.tobytes() == expected.training.tobytes()
        assert packed.evaluation.tobytes() == expected.evaluation.tobytes()


def test_a_long_document_is_packed_as_if_tokenised_at_once() -> None:
    numbers = [i % WORDS for i in range(100_000)]
    document = "".join(f"w{n}" + "\n "[n % 7 > 0] for n in numbers)
    packed = pack(lambda: iter([document]), NEITHER, PackingPlan(1000, 90_000, keep_bos=True))
    pieces = np.array(numbers[:90_000], dtype=np.int32).reshape(-1, 1000)
    assert same_contexts(packed.training, pieces.tolist())
