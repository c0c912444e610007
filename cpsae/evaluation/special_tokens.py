"""Which tokens are special: BOS, EOS and PAD, whose positions are left alone and not counted."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cpsae.store import Manifest


@dataclass(frozen=True)
class SpecialTokens:
    """The ids, and where they are from."""

    ids: tuple[int, ...]
    origin: Literal["store", "tokenizer", "config"]

    @classmethod
    def of_store(cls, manifest: Manifest) -> "SpecialTokens":
        """What a store was packed with: BOS in front of each context and the separator, EOS,
        between documents."""
        record = manifest.tokenizer
        return cls(_sorted(record.bos, record.separator) if record else (), "store")

    @classmethod
    def of_model(cls, tokenizer: Any, config: Any) -> "SpecialTokens":
        """Those of a model's tokenizer; of its config, where it has no tokenizer (None)."""
        named = tokenizer if tokenizer is not None else config.get_text_config()
        found: list[Any] = []
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(named, name, None)
            found += value if isinstance(value, list) else [value]
        return cls(_sorted(*found), "config" if tokenizer is None else "tokenizer")

    def among(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Of tokens of any shape: which are special."""
        return np.isin(tokens, self.ids)

    def as_json(self) -> dict[str, Any]:
        """What evaluation.json holds."""
        return {"ids": list(self.ids), "from": self.origin}


def _sorted(*ids: int | None) -> tuple[int, ...]:
    return tuple(sorted({int(token) for token in ids if token is not None}))
