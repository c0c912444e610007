"""A model's tokenizer, for documents: text is text, and every id has a row in the embedding."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from cpsae.corpus.backends import is_called_plainly, whole_texts, without_tokens
from cpsae.corpus.document import Chat, Ids
from cpsae.errors import CorpusError, first_line

TokenIds = np.ndarray[Any, np.dtype[np.int32]]

_MARK, _END = "\ue00a", "\ue00b"
"""Put around what a message spells, while the chat template makes one text of it."""


@dataclass(frozen=True)
class SpecialTokens:
    """The ids that packing puts in: in front of a piece, and between two documents."""

    bos: int | None
    separator: int | None


class Encoded(NamedTuple):
    """A text's tokens. Where they lie is asked one by one: of most it is never needed."""

    ids: TokenIds
    encoding: Any
    """As the tokenizers library has it."""

    def place(self, number: int) -> tuple[int, int]:
        """The characters that a token stands for, from and to."""
        return self.encoding.token_to_chars(number) or (0, 0)

    def word(self, number: int) -> int | None:
        """The stretch of text, of those that the pre-tokenizer cuts, that a token lies in."""
        found: int | None = self.encoding.token_to_word(number)
        return found

    def at(self, character: int) -> int | None:
        """The first token that stands for a character, if one does."""
        found: int | None = self.encoding.char_to_token(character)
        return found


def find_special_tokens(tokenizer: Any) -> SpecialTokens:
    """BOS, else CLS; EOS, else SEP; None where a tokenizer has neither."""

    def first(*names: str) -> int | None:
        ids = (getattr(tokenizer, name, None) for name in names)
        return next((int(token) for token in ids if token is not None), None)

    return SpecialTokens(
        bos=first("bos_token_id", "cls_token_id"),
        separator=first("eos_token_id", "sep_token_id"),
    )


class TextTokenizer:
    """A transformers tokenizer, fast or slow, that never makes a special token of what a text
    spells, unless `special_tokens` asks for it. Added tokens that are not special stay what they
    are."""

    def __init__(
        self, tokenizer: Any, *, special_tokens: bool = False, embedding_rows: int | None = None
    ) -> None:
        """embedding_rows: of the model, which an id has to be below. Raises CorpusError where the
        tokenizer's own BOS or separator is not."""
        self._tokenizer = tokenizer
        self._meant = special_tokens
        self._rows = embedding_rows
        self.special = find_special_tokens(tokenizer)
        for token in (self.special.bos, self.special.separator):
            if token is not None:
                self._check_rows(np.array([token], np.int32), "what packing puts in")
        self._control = {} if special_tokens else self._special_texts()
        self._backend = self._direct() if self.has_offsets else None

    @property
    def has_offsets(self) -> bool:
        """Whether a token's place in the text can be told: a slow tokenizer cannot."""
        return bool(getattr(self._tokenizer, "is_fast", False))

    @property
    def is_unigram(self) -> bool:
        """Whether it takes the likeliest of all ways to cut a word, looking at the whole word."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return type(getattr(backend, "model", None)).__name__ == "Unigram"

    def encode(self, texts: list[str]) -> list[TokenIds]:
        """The ids of each text. Raises CorpusError for an id that must not be in it."""
        if self._backend is not None:
            with whole_texts(self._backend, special_tokens=self._meant):
                found = self._backend.encode_batch_fast(texts, add_special_tokens=False)
            ids = [encoding.ids for encoding in found]
        else:
            ids = self._call(texts)["input_ids"]
        return [self._checked(np.array(tokens, dtype=np.int32)) for tokens in ids]

    def encode_with_places(self, texts: list[str]) -> list[Encoded]:
        """The same, with the place of each token; of a tokenizer that `has_offsets`."""
        if self._backend is not None:
            with whole_texts(self._backend, special_tokens=self._meant):
                encodings = self._backend.encode_batch(texts, add_special_tokens=False)
            ids = [encoding.ids for encoding in encodings]
        else:
            found = self._call(texts)
            encodings, ids = found.encodings, found["input_ids"]
        arrays = (self._checked(np.array(tokens, dtype=np.int32)) for tokens in ids)
        return [Encoded(*pair) for pair in zip(arrays, encodings, strict=True)]

    def of_ids(self, document: Ids) -> TokenIds:
        """Ids that a record holds, without the BOS at their start and the separator at their end,
        which packing puts itself. Raises CorpusError where one is none of this tokenizer's."""
        ids = self._without_ends(document.ids)
        rows = self._rows or len(self._tokenizer)
        wrong = ids[(ids < 0) | (ids >= rows)]
        if len(wrong):
            raise CorpusError(
                f"{document.where}: holds the token id {wrong[0]}, and the model's are 0 to "
                f"{rows - 1}; check --ids-field, and that this model's tokenizer made them"
            )
        return ids.astype(np.int32)

    def of_chat(self, document: Chat) -> TokenIds:
        """A conversation, as the tokenizer's chat template words it, without BOS and separator at
        its ends. Special tokens come from the template alone. Raises CorpusError where there is no
        template, or where it does not take these messages."""
        ids: list[int] = []
        for text, is_content in self._worded(document):
            if text:
                ids += self.encode([text])[0].tolist() if is_content else self._with_control(text)
        found = np.array(ids, dtype=np.int64)
        self._check_rows(found, f"{document.where}: the chat")
        return self._without_ends(found).astype(np.int32)

    def _worded(self, document: Chat) -> Iterator[tuple[str, bool]]:
        """The text of a chat, in pieces: the template's and what a message spells of special
        tokens, one after the other."""
        messages: Any = document.messages
        if not getattr(self._tokenizer, "chat_template", None):
            raise CorpusError(
                f"{document.where}: is a chat, and this model's tokenizer has no chat template; "
                "give a model that was tuned on chats, or text with --text-field"
            )
        if self._control:
            messages = _marked(messages, self._spelled)
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False)
        except Exception as error:  # of Jinja, of the template's own raising, of what it is given
            raise CorpusError(
                f"{document.where}: the tokenizer's chat template does not take it "
                f"({first_line(error)}); check --messages-field"
            ) from error
        for number, piece in enumerate(re.split(f"[{_MARK}{_END}]", text)):
            yield piece, number % 2 == 1

    def _with_control(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _without_ends(self, ids: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        if len(ids) and ids[0] == self.special.bos:
            ids = ids[1:]
        return ids[:-1] if len(ids) and ids[-1] == self.special.separator else ids

    @cached_property
    def _spelled(self) -> re.Pattern[str]:
        texts = sorted(self._control.values(), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, texts)))

    def _special_texts(self) -> dict[int, str]:
        """The id and text of every token that the tokenizer marks as special."""
        added = getattr(self._tokenizer, "added_tokens_decoder", {})
        found = {int(id_): str(token) for id_, token in added.items() if token.special}
        named = zip(
            self._tokenizer.all_special_ids, self._tokenizer.all_special_tokens, strict=True
        )
        return found | {int(id_): str(token) for id_, token in named if id_ is not None}

    def _direct(self) -> Any:
        """The backend to call: a copy where special tokens are words of the vocabulary, which text
        can spell; None where transformers has to be asked."""
        spelled = {
            text
            for id_, text in self._control.items()
            for ids in self._call([text, f"a {text} b", f"a{text}b"])["input_ids"]
            if id_ in ids and text
        }
        backend = self._tokenizer.backend_tokenizer
        if spelled:
            return without_tokens(backend, sorted(spelled))
        return backend if is_called_plainly(self._tokenizer) else None

    def _call(self, texts: list[str]) -> Any:
        tokenizer, split = self._plain
        # verbose=False: no warning that a text is longer than the model's window; it will be cut.
        return tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
            **split,
        )

    @cached_property
    def _plain(self) -> tuple[Any, dict[str, bool]]:
        """The tokenizer that is called, and how it is asked to leave special tokens alone. A slow
        one would leave all added tokens alone, so a copy of it is made to know the others only."""
        if self._meant:
            return self._tokenizer, {}
        added = getattr(self._tokenizer, "added_tokens_decoder", {})
        ordinary = [str(token) for id_, token in added.items() if id_ not in self._control]
        if self.has_offsets or not ordinary:
            return self._tokenizer, {"split_special_tokens": True}
        copied = copy.deepcopy(self._tokenizer)
        copied.tokens_trie = type(copied.tokens_trie)()
        for text in ordinary:
            copied.tokens_trie.add(text)
        return copied, {}

    def _checked(self, ids: TokenIds) -> TokenIds:
        self._check_rows(ids, "text of the corpus")
        found = ids[self._is_control[np.minimum(ids, len(self._is_control) - 1)]]
        if len(found):
            raise CorpusError(
                f"text of the corpus spells {self._name(int(found[0]))}, which this tokenizer "
                "always takes for a special token; give --special-tokens if that is meant"
            )
        return ids

    @cached_property
    def _is_control(self) -> "np.ndarray[Any, np.dtype[np.bool_]]":
        """By id, the last entry standing for all that follow. UNK stands for any rare text."""
        unknown = getattr(self._tokenizer, "unk_token_id", None)
        ids = [id_ for id_ in self._control if id_ != unknown]
        table = np.zeros(max(ids, default=-1) + 2, dtype=np.bool_)
        table[ids] = True
        return table

    def _check_rows(self, ids: "np.ndarray[Any, Any]", what: str) -> None:
        if self._rows is not None and len(ids) and (largest := int(ids.max())) >= self._rows:
            raise CorpusError(
                f"{what}: holds the token {self._name(largest)}, and the model has embeddings for "
                f"the ids 0 to {self._rows - 1} alone; take the tokenizer that belongs to the "
                "model, or take that token out of it"
            )

    def _name(self, id_: int) -> str:
        return f"{self._tokenizer.convert_ids_to_tokens(id_)!r} (id {id_})"


def _marked(value: Any, spelled: re.Pattern[str]) -> Any:
    """A message with marks around what it spells of special tokens."""
    if isinstance(value, str):
        return spelled.sub(f"{_MARK}\\g<0>{_END}", re.sub(f"[{_MARK}{_END}]", "", value))
    if isinstance(value, dict):
        return {key: _marked(inner, spelled) for key, inner in value.items()}
    return [_marked(inner, spelled) for inner in value] if isinstance(value, list) else value
