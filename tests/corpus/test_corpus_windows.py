"""Long texts in windows, against the whole text tokenised at once."""

import base64
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpsae.corpus.text_tokenizer import Encoded, TextTokenizer
from cpsae.corpus.windows import Sizes, tokens_in_windows
from tests.corpus.tokenizers_of_families import FAMILIES, LINES, plain_ids

SMALL = Sizes(window=400, overlap=160, agreeing=16, kinds=6, most_at_once=4)
WORDS = " ".join(LINES[:5]).split()


class Counted:
    """An encoder that notes how long the texts are that it is given."""

    def __init__(self, name: str) -> None:
        self.tokenizer = TextTokenizer(FAMILIES[name]())
        self.longest = 0

    def __call__(self, texts: list[str]) -> list[Encoded]:
        self.longest = max(self.longest, *map(len, texts))
        return self.tokenizer.encode_with_places(texts)


def in_pieces(text: str, length: int = 97) -> Iterator[str]:
    return (text[start : start + length] for start in range(0, len(text), length))


def check(name: str, text: str, sizes: Sizes = SMALL) -> int:
    """Compare with the whole; how long the longest stretch was."""
    encode = Counted(name)
    sizes = replace(sizes, between_words=encode.tokenizer.is_unigram)
    runs = list(tokens_in_windows(in_pieces(text), encode, sizes))
    found = np.concatenate(runs).tolist() if runs else []
    assert found == plain_ids(FAMILIES[name](), text)
    return encode.longest


def prose(chance: random.Random, length: int) -> str:
    text = ""
    while len(text) < length:
        text += chance.choice(WORDS) + chance.choice(
            [" ", " ", " ", "\n", "\n\n", ", ", "  ", "\t"]
        )
    return text[:length]


def no_blanks(chance: random.Random, length: int) -> str:
    return base64.b64encode(chance.randbytes(length)).decode()[:length]


def chinese(chance: random.Random, length: int) -> str:
    return "".join(
        chance.choice("道可非常名天地之始万物母故无欲以观其妙，。") for _ in range(length)
    )


@pytest.mark.parametrize("make", [prose, no_blanks, chinese])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_usual_text_is_cut_everywhere(name: str, make) -> None:
    for seed in range(3):
        longest = check(name, make(random.Random(seed), 6000))
        if name == "xlnet" or (name in ("t5", "bert", "words") and make is not prose):
            continue  # all one word to these
        assert longest <= 2 * SMALL.window


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a" * 3001,
        "ab" * 1501,
        "abc " * 700,
        "\n" * 2000,
        " " * 2000,
        "line of text\n" * 300,
        "0123456789" * 300,
        "🙂" * 900 + "é" * 900,
        "x" * 399,
        "x y " * 100,
        "words before " * 60 + "z" * 1500 + " words behind" * 60,
        "a\u0301\u0327" * 700,
        "[MASK]<|endoftext|>" * 60,
    ],
    ids=lambda text: f"{text[:8]!a} x {len(text)}",
)
def test_text_that_looks_the_same_everywhere(name: str, text: str) -> None:
    check(name, text)


documents = st.lists(
    st.one_of(
        st.sampled_from(WORDS),
        st.text(max_size=8),
        st.text("ab \n", min_size=1, max_size=30),
        st.sampled_from(
            [" ", "\n", "\r\n", "\n\n\n", "    ", "\t", "0", "é", "🙂", "道", "\u0301"]
        ),
        st.builds(lambda c, n: c * n, st.sampled_from("ab0 \n道🙂"), st.integers(1, 200)),
    ),
    max_size=200,
)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(pieces=documents, joiner=st.sampled_from(["", " ", "\n"]), repeat=st.integers(1, 4))
def test_windows_give_the_tokens_of_the_whole(name: str, pieces, joiner, repeat) -> None:
    check(name, joiner.join(pieces * repeat))


@pytest.mark.parametrize("name", ["gpt2", "llama2", "t5"])
def test_the_sizes_of_use(name: str) -> None:
    chance = random.Random(3)
    text = prose(chance, 150_000) + no_blanks(chance, 90_000) + prose(chance, 90_000)
    assert check(name, text, Sizes()) <= 2**17


def test_little_is_read_ahead() -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 97
            yield prose(random.Random(read), 97)

    runs = tokens_in_windows(endless(), Counted("llama2"), SMALL)
    for _ in range(10):
        next(runs)
    assert read < 10 * SMALL.window + 6 * SMALL.window
