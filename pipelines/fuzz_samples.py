"""One good file of each sort that cpsae reads, small: what fuzz_mutations.py changes."""

import gzip
import json
import shutil
import string
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

import cpsae
from cpsae.config import ExtractSettings
from cpsae.demo.run import LAYER, MODEL
from cpsae.stages.extract import extract
from cpsae.training.settings import FitSettings

VOCABULARY = ["<unk>", "<s>", "</s>", *string.ascii_letters, "ab"]
"""Of the small GGUF."""


def make_samples(folder: Path) -> None:
    """One good file of each sort, small."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    texts = [f"def f{i}(x):\n    return x + {i}\n" * 40 for i in range(40)]
    lines = "".join(json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate(texts))
    (corpus / "texts.jsonl").write_text(lines)
    (corpus / "all.json").write_text(json.dumps([{"text": text} for text in texts]))
    (corpus / "table.csv").write_text("text,n\n" + "".join(f'"word {i}",{i}\n' for i in range(99)))
    (corpus / "plain.txt").write_text("\n".join(texts))
    (corpus / "packed.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    _parquet(corpus / "table.parquet", texts)
    settings = ExtractSettings(
        model=str(MODEL),
        layer=LAYER,
        tokens=32,
        dataset=str(corpus / "texts.jsonl"),
        vectors=2000,
        store=str(folder / "acts.zarr"),
        device="cpu",
    )
    extract(settings)
    cpsae.fit(folder / "acts.zarr", small_fit(), out=folder / "run", progress=False)
    for target in ("sae-lens", "sparsify", "safetensors"):
        cpsae.export(folder / "run", target, folder / target)
    _gemma_scope(folder / "gemma-scope")
    _rows(folder / "rows")
    _gguf(folder / "gguf" / "tiny.gguf")
    shutil.copytree(MODEL, folder / "model")
    (folder / "settings").mkdir()
    values = {"kind": "topk", "k": 8, "lr": "1e-3", "steps": 100, "optimizer": "adam"}
    (folder / "settings" / "values.json").write_text(json.dumps(values))
    (folder / "recipe").mkdir()
    recipe = 'kind = "competitive"\nlr = 1e-3\n[temperature]\nbase = 0.2\n'
    (folder / "recipe" / "fit.toml").write_text(recipe)
    shutil.copy(folder / "run" / "config.json", folder / "recipe" / "config.json")


def small_fit() -> FitSettings:
    """Four updates, two checkpoints."""
    shape = FitSettings(kind="topk", k=8, n_latents=64, normalize="none", batch_size=64)
    return shape.model_copy(update={"steps": 4, "checkpoint_every": 2, "log_every": 1})


def _parquet(path: Path, texts: list[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)


def _gemma_scope(folder: Path) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (16, 32), "W_dec": (32, 16), "b_dec": (16,)}
    shapes |= {"b_enc": (32,), "threshold": (32,)}
    arrays: dict[str, Any] = {
        name: random.random(shape, np.float32) for name, shape in shapes.items()
    }
    np.savez(folder / "params.npz", **arrays)


def _rows(folder: Path) -> None:
    """The same rows as numpy, safetensors and a saved data set have them."""
    import datasets

    folder.mkdir()
    rows = np.random.default_rng(1).standard_normal((64, 5, 8)).astype(np.float32)
    np.save(folder / "rows.npy", rows)
    save_file({"acts": rows}, folder / "rows.safetensors")
    column = "blocks.1.hook_resid_post"
    features = datasets.Features({column: datasets.Array2D((5, 8), "float32")})
    datasets.Dataset.from_dict({column: rows}, features).save_to_disk(folder / "cached")


def _gguf(file: Path) -> None:
    """A Llama of two blocks with random weights, whose tokenizer knows single words."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(VOCABULARY), **sizes, **heads))
    file.parent.mkdir()
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3, 3, 3] + [1] * len(VOCABULARY[3:]))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, 2)
    for name, tensor in model.state_dict().items():
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
