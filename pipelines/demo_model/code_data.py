"""The demo model's data: Python's own library as text, its tokenizer, and packed pieces."""

import random
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

PAD, EOS, BOS = "<pad>", "<eos>", "<bos>"
PAD_ID, EOS_ID, BOS_ID = 0, 1, 2

# A newline; the indentation after one; one digit; a word, or a run of punctuation, with the
# space before it; other blanks. Every character falls in exactly one of them.
PRE_TOKENS = "|".join(
    [
        r"\r?\n",
        r"(?<=\n)[ \t]+",
        r"\d",
        r" ?[^\W\d]+",
        r" ?[^\w\s]+",
        r"[^\S\n]+(?!\S)",
        r"[^\S\n]+",
        r"\s",
        r"\w",
    ]
)


def split_documents(
    documents: Sequence[str], held_out: float, seed: int
) -> tuple[list[str], list[str]]:
    """Training and held-out documents, each in a seeded order."""
    shuffled = list(documents)
    random.Random(seed).shuffle(shuffled)
    n_held_out = max(1, round(len(shuffled) * held_out))
    return shuffled[n_held_out:], shuffled[:n_held_out]


def train_tokenizer(documents: Iterable[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE for source code; decoding gives back the exact text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[PAD, EOS, BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer


def token_stream(tokenizer: Tokenizer, documents: Sequence[str]) -> np.ndarray:
    """The documents' tokens, an <eos> after each, as one int32 array."""
    encodings = tokenizer.encode_batch(list(documents), add_special_tokens=False)
    parts = [np.array([*e.ids, EOS_ID], dtype=np.int32) for e in encodings]
    return np.concatenate(parts)


def pack(stream: np.ndarray, context: int, bos: int, offset: int = 0) -> torch.Tensor:
    """Pieces (n, context) of the stream from `offset` on, <bos> in front; the rest is dropped."""
    width = context - 1
    n = (len(stream) - offset) // width
    body = stream[offset : offset + n * width].reshape(n, width)
    pieces = np.concatenate([np.full((n, 1), bos, dtype=np.int32), body], axis=1)
    return torch.from_numpy(pieces).long()


class Batches:
    """Training batches by step number: every epoch is cut at another offset and reshuffled."""

    def __init__(
        self, stream: np.ndarray, context: int, bos: int, batch_contexts: int, seed: int
    ) -> None:
        self.stream, self.context, self.bos = stream, context, bos
        self.batch_contexts, self.seed = batch_contexts, seed
        self.per_epoch = (len(stream) // (context - 1) - 1) // batch_contexts
        self._epoch = -1
        self._pieces = torch.empty(0)

    def __getitem__(self, step: int) -> torch.Tensor:
        """Batch (batch_contexts, context) of a step: a pure function of the step and the seed."""
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = np.random.default_rng([self.seed, epoch])
            offset = int(generator.integers(self.context - 1))
            pieces = pack(self.stream, self.context, self.bos, offset)
            self._pieces = pieces[torch.from_numpy(generator.permutation(len(pieces)))]
            self._epoch = epoch
        return self._pieces[index * self.batch_contexts : (index + 1) * self.batch_contexts]
