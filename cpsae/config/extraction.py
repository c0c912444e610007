"""Settings of stage 1: which activations of which model over which text go into which store."""

from typing import Literal

from pydantic import Field

from cpsae.config.base import Count, Device, Settings

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
StoreDtype = Literal["bfloat16", "float16", "float32"]

_MOST_HELD_OUT = 200_000


class ExtractSettings(Settings):
    """What `cpsae extract` is asked for. The defaults are the paper's (METHOD section 4)."""

    model: str = Field("google/gemma-2-2b", min_length=1)
    """A hub name, a local folder, or a local .gguf file."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    layer: int = Field(19, ge=0)
    """Which block's output, counted from 0: `hidden_states[layer + 1]`."""
    tokens: Count = Field(128, ge=2)
    """Tokens a context, beginning-of-sequence token included."""
    dataset: str = Field("monology/pile-uncopyrighted", min_length=1)
    """A hub name, or a local file or folder (.txt, .jsonl, .parquet, source files)."""
    dataset_revision: str | None = None
    """Branch, tag or commit of a data set on the hub."""
    split: str = "train"
    """Split of a data set on the hub."""
    text_field: str = "text"
    """The field of a .jsonl line, parquet row or hub record that holds the text."""
    vectors: Count = Field(10_000_000, ge=1)
    """Training rows to store, exactly; the held-out part comes on top."""
    store: str = Field("acts.zarr", min_length=1)
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


def held_out_rows(vectors: int) -> int:
    """Rows of the evaluation part that goes with `vectors` training rows: a hundredth, but a tenth
    while that is under 20,000; at least 1, at most 200,000."""
    share = max(vectors // 100, min(vectors // 10, 20_000))
    return max(1, min(_MOST_HELD_OUT, share))
