"""Text that spells special tokens, ids and chats, and what a model has no embedding of."""

import numpy as np
import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from cpsae.corpus import PackingPlan, pack
from cpsae.corpus.document import Chat, Ids
from cpsae.corpus.text_tokenizer import TextTokenizer
from cpsae.errors import CorpusError
from tests.corpus.tokenizers_of_families import FAMILIES, LINES, plain_ids

TURNS = [{"role": "user", "content": "naïve café?"}, {"role": "bot", "content": "lazy dog"}]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|turn|>{{ m['role'] }}: {{ m['content'] }}"
    "{{ eos_token }}{% endfor %}"
)


def message(error: pytest.ExceptionInfo[CorpusError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def specials(tokenizer: PreTrainedTokenizerFast) -> dict[int, str]:
    return dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_ordinary_text_has_the_ids_of_transformers(name: str) -> None:
    tokenizer = FAMILIES[name]()
    found = TextTokenizer(tokenizer).encode(LINES[:5])
    assert [ids.tolist() for ids in found] == [plain_ids(tokenizer, line) for line in LINES[:5]]
    assert all(ids.dtype == np.int32 for ids in found)
    whole = tokenizer(LINES[:5], add_special_tokens=False)["input_ids"]
    assert [ids.tolist() for ids in found] == whole


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "sentence", ["{}", "a prompt begins with {} and ends", "x{}y", "{0}{0}", " {} ", "▁{}\n{}"]
)
def test_no_text_becomes_a_special_token(name: str, sentence: str) -> None:
    tokenizer = FAMILIES[name]()
    unknown = tokenizer.unk_token_id
    for id_, text in specials(tokenizer).items():
        for encoded in (
            TextTokenizer(tokenizer).encode([sentence.replace("{0}", text).replace("{}", text)])[0],
            TextTokenizer(tokenizer).encode_with_places([sentence.replace("{}", text)])[0].ids,
        ):
            assert id_ == unknown or id_ not in encoded
            assert len(encoded)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "words"])
def test_unless_special_tokens_are_meant(name: str) -> None:
    tokenizer = FAMILIES[name]()
    meant = TextTokenizer(tokenizer, special_tokens=True)
    for id_, text in specials(tokenizer).items():
        assert meant.encode([f"some words {text} more"])[0].tolist().count(id_) == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tokenizer_itself_is_left_as_it_is(name: str) -> None:
    tokenizer = FAMILIES[name]()
    before = tokenizer.backend_tokenizer.to_str()
    TextTokenizer(tokenizer).encode(["<s> words"])
    assert tokenizer.backend_tokenizer.to_str() == before
    special = tokenizer.all_special_ids[-1]
    text = tokenizer.convert_ids_to_tokens(special)
    assert special in tokenizer(f"a {text} b", add_special_tokens=False)["input_ids"]


def test_added_tokens_that_are_not_special_stay() -> None:
    tokenizer = FAMILIES["gemma"]()
    ids = TextTokenizer(tokenizer).encode(["a\n\nb\tc <s>"])[0].tolist()
    for text in ("\n\n", "\t"):
        assert tokenizer.convert_tokens_to_ids(text) in ids
    assert tokenizer.bos_token_id not in ids


@pytest.mark.parametrize("name", FAMILIES)
def test_truncation_and_padding_that_were_saved_do_not_count(name: str) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=FAMILIES[name]().backend_tokenizer, **FAMILIES[name]().special_tokens_map
    )
    expected = plain_ids(tokenizer, LINES[0])
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=400)
    assert TextTokenizer(tokenizer).encode([LINES[0], "a"])[0].tolist() == expected


def slow(**added: AddedToken):
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer(extra_ids=3)
    tokenizer.add_tokens(list(added.values()))
    return tokenizer


def test_a_slow_tokenizer_keeps_to_text_too() -> None:
    tokenizer = slow()
    assert not tokenizer.is_fast
    ids = TextTokenizer(tokenizer).encode(["a </s> b <pad>"])[0].tolist()
    assert ids == [byte + 3 for byte in b"a </s> b <pad>"]
    assert (
        tokenizer.eos_token_id in TextTokenizer(tokenizer, special_tokens=True).encode(["</s>"])[0]
    )


def test_a_slow_tokenizer_keeps_its_other_added_tokens() -> None:
    tokenizer = slow(ordinary=AddedToken("[tool]", special=False))
    tool = tokenizer.convert_tokens_to_ids("[tool]")
    ids = TextTokenizer(tokenizer).encode(["a[tool]b </s> c"])[0].tolist()
    assert ids == [100, tool, *[byte + 3 for byte in b"b </s> c"]]
    with pytest.raises(CorpusError) as error:  # nothing but it between two others
        TextTokenizer(tokenizer).encode(["[tool]</s>[tool]"])
    assert "spells '</s>' (id 1)" in message(error) and "--special-tokens" in message(error)


def test_a_token_without_an_embedding_is_an_error() -> None:
    tokenizer = FAMILIES["gpt2"]()
    rows = len(tokenizer) - 1
    with pytest.raises(CorpusError) as error:
        TextTokenizer(tokenizer, embedding_rows=tokenizer.bos_token_id)
    assert "'<|endoftext|>' (id 0)" in message(error)
    largest = max(plain_ids(tokenizer, LINES[0]))
    with pytest.raises(CorpusError) as error:
        TextTokenizer(tokenizer, embedding_rows=largest).encode([LINES[0]])
    assert (
        f"(id {largest}), and the model has embeddings for the ids 0 to {largest - 1}"
        in message(error)
    )
    TextTokenizer(tokenizer, embedding_rows=rows + 1).encode(LINES)


def test_the_error_comes_before_any_document_is_read() -> None:
    def none_read():
        raise AssertionError("read")
        yield

    tokenizer = FAMILIES["llama3"]()
    with pytest.raises(CorpusError, match="what packing puts in"):
        pack(none_read, tokenizer, PackingPlan(4, 4), embedding_rows=tokenizer.bos_token_id)


def test_ids_lose_the_ends_that_packing_puts() -> None:
    tokenizer = FAMILIES["llama3"]()
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    text = TextTokenizer(tokenizer)
    for ids in ([5, 6, 7], [bos, 5, 6, 7], [5, 6, 7, eos], [bos, 5, 6, 7, eos]):
        assert text.of_ids(Ids(np.array(ids), "here")).tolist() == [5, 6, 7]
    assert text.of_ids(Ids(np.array([bos, bos, 5, eos, eos]), "here")).tolist() == [bos, 5, eos]
    assert text.of_ids(Ids(np.array([], np.int64), "here")).tolist() == []
    assert text.of_ids(Ids(np.array([bos]), "here")).tolist() == []


@pytest.mark.parametrize("wrong", [-1, 50, 2**31 - 1])
def test_ids_that_are_not_the_model_s(wrong: int) -> None:
    text = TextTokenizer(FAMILIES["gpt2"](), embedding_rows=50)
    with pytest.raises(CorpusError) as error:
        text.of_ids(Ids(np.array([5, wrong, 7]), "a.parquet, row 3"))
    assert message(error).startswith(
        f"a.parquet, row 3: holds the token id {wrong}, and the model's are 0 to 49; check --ids-"
    )


@pytest.fixture
def chatting() -> PreTrainedTokenizerFast:
    made = FAMILIES["llama3"]()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made.backend_tokenizer, **made.special_tokens_map
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_a_chat_is_what_the_template_says(chatting) -> None:
    whole = chatting.apply_chat_template(TURNS, tokenize=True, return_dict=False)
    assert whole[0] == chatting.bos_token_id and whole[-1] == chatting.eos_token_id
    found = TextTokenizer(chatting).of_chat(Chat(TURNS, "here"))
    assert found.tolist() == whole[1:-1]
    turn = chatting.convert_tokens_to_ids("<|turn|>")
    assert found.tolist().count(turn) == 2


def test_what_a_message_spells_is_text(chatting) -> None:
    turn = chatting.convert_tokens_to_ids("<|turn|>")
    spelled = [{"role": "user", "content": "write <|turn|> and <|end_of_text|> here"}]
    found = TextTokenizer(chatting).of_chat(Chat(spelled, "here")).tolist()
    assert found.count(turn) == 1 and chatting.eos_token_id not in found
    assert "".join(chatting.convert_ids_to_tokens(found)).count("<|turn|>") == 2
    meant = TextTokenizer(chatting, special_tokens=True).of_chat(Chat(spelled, "here")).tolist()
    assert meant.count(turn) == 2


def test_a_tokenizer_without_a_template(chatting) -> None:
    chatting.chat_template = None
    with pytest.raises(CorpusError) as error:
        TextTokenizer(chatting).of_chat(Chat(TURNS, "a.jsonl, line 2"))
    assert "a.jsonl, line 2: is a chat, and this model's tokenizer has no chat" in message(error)


@pytest.mark.parametrize("template", ["{{ raise_exception('roles must alternate') }}", "{{"])
def test_a_template_that_cannot_be_used(chatting, template: str | None) -> None:
    chatting.chat_template = template
    with pytest.raises(CorpusError) as error:
        TextTokenizer(chatting).of_chat(Chat(TURNS, "a.jsonl, line 2"))
    assert message(error).startswith("a.jsonl, line 2: the tokenizer's chat template does not take")
    assert "--messages-field" in message(error)


@pytest.mark.parametrize("merges", [True, False])
def test_a_special_token_that_merges_can_make(merges: bool) -> None:
    from tokenizers import Tokenizer, models

    vocabulary = {"<": 0, "b": 1, ">": 2, "<b": 3, "<b>": 4}
    steps = [("<", "b"), ("<b", ">")] if merges else []
    tokenizer = Tokenizer(models.BPE(vocabulary, steps, ignore_merges=not merges))
    tokenizer.add_special_tokens(["<b>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<b>")
    expected = [3, 2] if merges else [0, 1, 2]
    assert TextTokenizer(fast).encode(["<b>"])[0].tolist() == expected
