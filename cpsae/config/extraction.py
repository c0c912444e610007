"""Settings of stage 1: which activations of which model over which text go into which store."""

import codecs
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from cpsae.config.base import Count, Device, PathText, Settings

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
StoreDtype = Literal["bfloat16", "float16", "float32"]

_NO_CHARSETS = ("idna", "punycode", "unicode_escape", "raw_unicode_escape")
"""What Python calls encodings, and no file is in."""

Point = Literal["resid_pre", "attn_out", "mlp_out", "resid_post"]
POINTS: tuple[Point, ...] = ("resid_pre", "attn_out", "mlp_out", "resid_post")
"""Places in a block of a language model, in the order in which it comes to them."""


class Site(NamedTuple):
    """One place in a model: a point in block `layer`, counted from 0."""

    layer: int
    point: Point = "resid_post"


class ExtractSettings(Settings):
    """What `cpsae extract` is asked for. The defaults are the paper's (METHOD section 4)."""

    model: PathText = Field("google/gemma-2-2b", min_length=1)
    """A hub name, a local folder, or a local .gguf file."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    layer: int | tuple[int, ...] = 19
    """Which block, or blocks, counted from 0."""
    hook: Point | tuple[Point, ...] = "resid_post"
    """Where in the block: resid_post is its output, `hidden_states[layer + 1]`; resid_pre its
    input; attn_out and mlp_out are what attention and the MLP add to the residual stream."""
    tokens: Count = Field(128, ge=2)
    """Tokens a context, beginning-of-sequence token included."""
    dataset: PathText = Field("monology/pile-uncopyrighted", min_length=1)
    """A hub name, or a local file or folder (text, source files, records; compressed or not)."""
    dataset_revision: str | None = None
    """Branch, tag or commit of a data set on the hub."""
    dataset_config: str | None = None
    """Configuration of a data set that has several, on the hub or in a local copy's README.md."""
    split: str | None = None
    """Split of the records, on the hub or local; by default the only one, else `train`."""
    text_field: str = "text"
    """The field of each record that holds the text."""
    ids_field: str | None = None
    """Instead: the field that holds token ids, of a data set that is tokenised already."""
    messages_field: str | None = None
    """Instead: the field that holds a chat's messages, for the tokenizer's chat template."""
    encoding: str | None = None
    """Of text that is not UTF-8 and has no byte-order mark, like cp1251."""
    special_tokens: bool = False
    """Take what the text spells, like <bos>, for the special tokens themselves."""
    vectors: Count = Field(10_000_000, ge=1)
    """Training rows to store, exactly; the held-out part comes on top."""
    store: PathText = Field("acts.zarr", min_length=1)
    """Folder of the store."""
    dtype: Dtype = "auto"
    """What the model computes in; auto: bfloat16 on a GPU, float32 on a CPU."""
    store_dtype: StoreDtype = "bfloat16"
    """What is written."""
    device: Device = "auto"
    """auto takes a GPU where there is one."""
    batch_contexts: Count | None = Field(None, ge=1)
    """Contexts a forward pass; by default chosen by the first run and recorded in the store."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"] = "auto"
    """Attention implementation; auto: eager for models with soft-capping, else sdpa."""
    keep_bos: bool = False
    """Store position 0 of each context too (its norm is an outlier in many models)."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the global shuffle of contexts."""
    trust_remote_code: bool = False
    """Let transformers and datasets run code that a model or data set repository ships."""

    @field_validator("layer", mode="before")
    @classmethod
    def _layers(cls, value: Any) -> int | tuple[int, ...]:
        pieces = _pieces(value)
        layers = [int(p) for p in pieces if not isinstance(p, bool) and str(p).isdecimal()]
        if not layers or len(layers) < len(pieces):
            raise ValueError("expected block numbers, counted from 0, like 19 or 5,12,19")
        return layers[0] if len(layers) == 1 else tuple(layers)

    @field_validator("hook", mode="before")
    @classmethod
    def _hooks(cls, value: Any) -> Any:
        pieces = _pieces(value)
        if not pieces or any(piece not in POINTS for piece in pieces):
            raise ValueError(f"expected one or more of {', '.join(POINTS)}")
        return pieces[0] if len(pieces) == 1 else tuple(pieces)

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                "a".encode(value)  # which says of base64 and its like, too, that they are none
                if codecs.lookup(value).name.replace("-", "_") in _NO_CHARSETS:
                    raise LookupError
        except (LookupError, UnicodeError):
            raise ValueError("expected an encoding that Python knows, like cp1251") from None
        return value

    @model_validator(mode="after")
    def _one_field(self) -> "ExtractSettings":
        given = [key for key in ("text_field", "ids_field", "messages_field") if self._has(key)]
        if len(given) > 1:
            raise ValueError(
                f"{given[0]} and {given[1]} are both given: a document is in one field"
            )
        if self.special_tokens and self.ids_field is not None:
            raise ValueError(
                "special_tokens is for text, and ids_field takes token ids as they are"
            )
        return self

    @model_validator(mode="after")
    def _no_site_twice(self) -> "ExtractSettings":
        twice = [site for site in self.sites if self.sites.count(site) > 1]
        if twice:
            raise ValueError(f"layer {twice[0].layer} with hook {twice[0].point} is given twice")
        return self

    @property
    def field(self) -> tuple[str, Literal["text", "ids", "messages"]]:
        """The field of each record that is read, and as what."""
        if self.ids_field is not None:
            return self.ids_field, "ids"
        if self.messages_field is not None:
            return self.messages_field, "messages"
        return self.text_field, "text"

    @property
    def sites(self) -> list[Site]:
        """Every layer with every hook, by layer and then by place in the block."""
        layers = self.layer if isinstance(self.layer, tuple) else (self.layer,)
        points = self.hook if isinstance(self.hook, tuple) else (self.hook,)
        return sorted(
            (Site(layer, point) for layer in layers for point in points),
            key=lambda site: (site.layer, POINTS.index(site.point)),
        )

    def _has(self, key: str) -> bool:
        """Whether a setting was given."""
        return key in self.model_fields_set and getattr(self, key) is not None

    def of_site(self, site: Site, store: str) -> "ExtractSettings":
        """The same extraction of one site alone, into `store`."""
        return self.model_copy(update={"layer": site.layer, "hook": site.point, "store": store})


def _pieces(value: Any) -> list[Any]:
    """Comma text and lists are several, anything else is one."""
    if isinstance(value, str):
        return [piece.strip() for piece in value.split(",")]
    return list(value) if isinstance(value, list | tuple) else [value]
