"""Backends called directly: with what transformers gives, and left as they were."""

import pytest
from transformers import PreTrainedTokenizerFast

from cpsae.corpus.backends import is_called_plainly, whole_texts, without_tokens
from cpsae.corpus.text_tokenizer import TextTokenizer
from tests.corpus.tokenizers_of_families import FAMILIES, LINES, plain_ids

TEXTS = [*LINES[:5], "", " ", "a <s> b </s> <|endoftext|> c", "one\n\ntwo   three"]


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_are_those_of_transformers(name: str) -> None:
    tokenizer = FAMILIES[name]()
    texts = TEXTS if name not in ("t5", "xlnet", "words") else TEXTS[:7]
    found = TextTokenizer(tokenizer).encode(texts)
    assert [ids.tolist() for ids in found] == [plain_ids(tokenizer, text) for text in texts]
    meant = TextTokenizer(tokenizer, special_tokens=True).encode(TEXTS)
    expected = tokenizer(TEXTS, add_special_tokens=False, split_special_tokens=False)["input_ids"]
    assert [ids.tolist() for ids in meant] == expected


def test_a_tokenizer_that_cuts_and_pads_keeps_doing_so() -> None:
    backend = FAMILIES["gpt2"]().backend_tokenizer
    backend.enable_truncation(max_length=4, stride=1)
    backend.enable_padding(length=9, pad_id=3, pad_token="x")
    before = backend.truncation, backend.padding, backend.encode_special_tokens
    try:
        with whole_texts(backend, special_tokens=False):
            assert len(backend.encode(LINES[0]).ids) > 9
            assert backend.encode_special_tokens
        assert (backend.truncation, backend.padding, backend.encode_special_tokens) == before
        with pytest.raises(KeyError), whole_texts(backend, special_tokens=True):
            raise KeyError
        assert (backend.truncation, backend.padding, backend.encode_special_tokens) == before
    finally:
        backend.no_truncation()
        backend.no_padding()


class Shouting(PreTrainedTokenizerFast):
    """One that does more than call its backend."""

    def __call__(self, text, **options):
        return super().__call__([one.upper() for one in text], **options)


def test_a_class_of_its_own_is_asked() -> None:
    usual = FAMILIES["gpt2"]()
    shouting = Shouting(tokenizer_object=usual.backend_tokenizer, bos_token="<|endoftext|>")
    assert is_called_plainly(usual) and not is_called_plainly(shouting)
    [ids] = TextTokenizer(shouting).encode(["some words"])
    assert ids.tolist() == plain_ids(usual, "SOME WORDS")


def test_hidden_tokens_keep_their_ids_and_come_of_no_text() -> None:
    backend = FAMILIES["t5"]().backend_tokenizer
    hidden = without_tokens(backend, ["</s>"])
    assert backend.encode("a </s> b", add_special_tokens=False).ids.count(1)
    assert hidden.encode("a </s> b", add_special_tokens=False).ids.count(1) == 0
    assert hidden.get_vocab_size() == backend.get_vocab_size()
    text = "plain words are as they were"
    assert hidden.encode(text).ids == backend.encode(text, add_special_tokens=False).ids
