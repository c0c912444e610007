"""Small tokenizers of every family that transformers has, trained on a few lines."""

import functools
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

LINES = [
    "The quick brown fox jumps over the lazy dog, again and again; it is 1984 or 2024.",
    "def tokenise(documents, tokenizer):\n    return [tokenizer(text) for text in documents]",
    "Съешь же ещё этих мягких французских булок да выпей чаю.",
    "道可道，非常道。名可名，非常名。",
    "naïve café — déjà vu 🙂🙂 aaaa bbbb   spaces\n\n\nlines\r\n\ttabs",
] * 20
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _wrapped(tokenizer: Tokenizer, **names: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def gpt2() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        LINES,
        trainers.BpeTrainer(
            show_progress=False,
            vocab_size=600,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=alphabet,
        ),
    )
    return _wrapped(tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def llama3() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|begin_of_text|>", "<|end_of_text|>"]
    tokenizer.train_from_iterator(
        LINES, trainers.BpeTrainer(show_progress=False, vocab_size=600, initial_alphabet=alphabet)
    )
    tokenizer.add_special_tokens(special)
    return _wrapped(tokenizer, bos_token=special[0], eos_token=special[1])


def _sentencepiece_bpe() -> Tokenizer:
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.train_from_iterator(
        [word for line in LINES for word in line.split()],
        trainers.BpeTrainer(show_progress=False, vocab_size=700, special_tokens=specials),
    )
    content = tokenizer.to_str().replace('"special":true', '"special":false')
    tokenizer = Tokenizer.from_str(content)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def llama2() -> PreTrainedTokenizerFast:
    """A space in front of every text, no words, bytes for what is rare."""
    tokenizer = _sentencepiece_bpe()
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Replace("▁", " ")
    return _wrapped(tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def gemma() -> PreTrainedTokenizerFast:
    """No space in front, and runs of line ends and blanks as tokens that are not special."""
    tokenizer = _sentencepiece_bpe()
    tokenizer.add_tokens(
        [AddedToken(text, normalized=False) for text in ("\n", "\n\n", "▁▁", "\t")]
    )
    return _wrapped(tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def bert() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=50))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    tokenizer.train_from_iterator(
        LINES,
        trainers.WordPieceTrainer(show_progress=False, vocab_size=400, special_tokens=special),
    )
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return _wrapped(tokenizer, **names, pad_token="[PAD]", mask_token="[MASK]")


def t5() -> PreTrainedTokenizerFast:
    """Pieces by their likelihood, with the special tokens among them."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        LINES,
        trainers.UnigramTrainer(
            show_progress=False, vocab_size=400, special_tokens=special, unk_token="<unk>"
        ),
    )
    return _wrapped(tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def xlnet() -> PreTrainedTokenizerFast:
    """Pieces by their likelihood, without words."""
    tokenizer = t5().backend_tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return _wrapped(tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def words() -> PreTrainedTokenizerFast:
    """Whole words, the special tokens among them."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = ["<unk>", "<bos>", "<eos>"]
    tokenizer.train_from_iterator(
        LINES,
        trainers.WordLevelTrainer(show_progress=False, vocab_size=300, special_tokens=special),
    )
    return _wrapped(tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")


FAMILIES = {
    make.__name__: functools.cache(make)
    for make in (gpt2, llama3, llama2, gemma, bert, t5, xlnet, words)
}


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """The whole text at once, as transformers has it where special tokens are text."""
    ids: list[int] = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, verbose=False
    )["input_ids"]
    return ids
