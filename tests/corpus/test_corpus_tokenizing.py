"""Fragments of long documents, and importing without torch."""

import subprocess
import sys

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cpsae.corpus.tokenizing import fragments, tokenise


def byte_tokenizer(prefix: bool = False) -> PreTrainedTokenizerFast:
    """GPT-2's words, byte tokens, and pairs of line ends and of blanks merged."""
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ĊĊ", "ĠĠ"]
    vocabulary = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ċ", "Ċ"), ("Ġ", "Ġ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if prefix:
        tokenizer.normalizer = normalizers.Prepend("_")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


BYTES = byte_tokenizer()
PREFIXING = byte_tokenizer(prefix=True)


@pytest.mark.parametrize(
    ("document", "several"),
    [
        ("", False),
        ("short\ntext", False),
        ("x" * 200_000, False),
        ("line of text\n" * 20_000, True),
        ("paragraph\n\nand another\r\n\n    indented line\n" * 6_000, True),
        ("one long line " * 20_000, True),
        ("\n" * 99_999, False),
    ],
    ids=["empty", "short", "one word", "lines", "paragraphs", "one line", "line ends"],
)
def test_fragments_give_the_text_and_the_tokens_of_the_whole(document: str, several: bool) -> None:
    parts = list(fragments(document, BYTES))
    assert "".join(parts) == document
    assert (len(parts) > 1) == several
    ids = BYTES([document, *parts], add_special_tokens=False)["input_ids"]
    assert ids[0] == [token for part in ids[1:] for token in part]


def test_lines_are_cut_at_their_ends_and_not_in_a_run_of_them() -> None:
    parts = list(fragments("a\n\nline\nof text\n" * 20_000, BYTES))
    assert len(parts) > 3
    for part, following in zip(parts, parts[1:], strict=False):
        assert part.endswith(("line\n", "text\n"))
        assert following.startswith(("of text\n", "a\n\n"))
        assert 2**16 <= len(part) < 2**16 + 100


def test_a_document_is_left_whole_where_parts_would_have_other_tokens() -> None:
    document = "line of text\n" * 20_000
    assert list(fragments(document, PREFIXING)) == [document]


def test_only_the_first_run_of_a_document_starts_it() -> None:
    runs = [run for batch in tokenise(["a", "line\n" * 50_000, "b"], BYTES) for run in batch]
    assert len(runs) > 4
    assert [run.starts_document for run in runs] == [True, True, *[False] * (len(runs) - 3), True]
    assert sum(len(run.ids) for run in runs) == 250_002


def test_importing_the_corpus_brings_no_torch() -> None:
    code = "import sys, cpsae.corpus; print({'torch', 'datasets', 'zarr'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
