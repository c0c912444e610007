"""Train the small Gemma-2-architecture language model that `cpsae demo` carries.

The numbers are in recipe.toml. The same command continues from the last checkpoint.
"""

import json
import math
import os
import shutil
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from code_data import (  # type: ignore[import-not-found]
    BOS,
    BOS_ID,
    EOS,
    EOS_ID,
    PAD,
    PAD_ID,
    Batches,
    pack,
    split_documents,
    token_stream,
    train_tokenizer,
)
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import Gemma2Config, Gemma2ForCausalLM

from cpsae.demo.corpus import TESTS, library_documents


class Section(BaseModel):
    """A part of the recipe: fixed once read, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataRecipe(Section):
    """Which text, and how it is cut."""

    held_out: float
    context: int
    vocabulary: int


class ModelRecipe(Section):
    """The sizes, under the names of transformers' Gemma2Config."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    query_pre_attn_scalar: int
    intermediate_size: int
    sliding_window: int


class TrainingRecipe(Section):
    """The optimiser, its schedule, and what is logged and saved when."""

    steps: int
    minutes: float
    batch_contexts: int
    learning_rate: float
    final_learning_rate: float
    warmup_steps: int
    weight_decay: float
    beta1: float
    beta2: float
    gradient_clip: float
    threads: int
    compile: bool
    log_every: int
    save_minutes: float
    quick_contexts: int


class Recipe(Section):
    """All of recipe.toml."""

    seed: int
    data: DataRecipe
    model: ModelRecipe
    training: TrainingRecipe


class HeldOut:
    """The held-out text as pieces, and what turns its loss into bits per byte."""

    def __init__(self, documents: list[str], tokenizer: Tokenizer, context: int) -> None:
        stream = token_stream(tokenizer, documents)
        self.pieces = pack(stream, context, BOS_ID)
        n_bytes = sum(len(d.encode()) for d in documents)
        self.tokens_per_byte = len(stream) / n_bytes

    def bits_per_byte(self, loss: float) -> float:
        """Bits per byte of a mean loss in nats per token."""
        return loss / math.log(2) * self.tokens_per_byte


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file."""
    return Recipe.model_validate(tomllib.loads(path.read_text()))


def build_model(recipe: Recipe) -> torch.nn.Module:
    """A new model with seeded weights, in float32."""
    torch.manual_seed(recipe.seed)
    config = Gemma2Config(
        vocab_size=recipe.data.vocabulary,
        max_position_embeddings=recipe.data.context,
        pad_token_id=PAD_ID,
        eos_token_id=EOS_ID,
        bos_token_id=BOS_ID,
        tie_word_embeddings=True,
        attn_implementation="eager",
        **recipe.model.model_dump(),
    )
    model: torch.nn.Module = Gemma2ForCausalLM(config)
    return model


def build_optimizer(model: torch.nn.Module, recipe: TrainingRecipe) -> torch.optim.AdamW:
    """AdamW; the matrices decay, the norms' scales do not."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    betas = (recipe.beta1, recipe.beta2)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas, fused=True)


def learning_rate(recipe: TrainingRecipe, step: int, progress: float) -> float:
    """Linear warm-up by step, then a cosine by progress (0 to 1) down to the final rate."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    low, high = recipe.final_learning_rate, recipe.learning_rate
    return low + (high - low) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def mean_loss(model: Callable[..., Any], pieces: torch.Tensor) -> torch.Tensor:
    """Mean next-token loss, nats per token, of pieces (n, context)."""
    logits = model(input_ids=pieces[:, :-1], use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1), pieces[:, 1:].flatten())


@torch.no_grad()
def validate(model: torch.nn.Module, pieces: torch.Tensor) -> float:
    """Mean loss over held-out pieces."""
    parts = torch.tensor_split(pieces, math.ceil(len(pieces) / 32))
    return sum(float(mean_loss(model, part)) * len(part) for part in parts) / len(pieces)


def replace_folder(new: Path, final: Path) -> None:
    """Put a finished folder in place of an older one, after its files have reached the disk."""
    for file in new.iterdir():
        file.chmod(0o644)
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    old = final.with_name(final.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    new.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def new_folder(path: Path) -> Path:
    """An empty folder at `path`."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def write_json(path: Path, value: object) -> None:
    """Indented JSON with a final newline."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def export(model: torch.nn.Module, tokenizer: Tokenizer, out: Path) -> None:
    """Write the folder that transformers loads: bfloat16 weights, config and tokenizer."""
    folder = new_folder(out.with_name(out.name + ".new"))
    weights = {
        name: value.to(torch.bfloat16).contiguous()
        for name, value in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_diff_dict()  # type: ignore[union-attr,operator]
    config |= {"architectures": ["Gemma2ForCausalLM"], "dtype": "bfloat16"}
    config.pop("transformers_version", None)
    write_json(folder / "config.json", config)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", settings)
    replace_folder(folder, out)


def save_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.AdamW, state: dict[str, float]
) -> None:
    """Weights, the optimiser's moments, and the step and seconds so far."""
    new = new_folder(folder.with_name(folder.name + ".new"))
    weights = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(weights, new / "model.safetensors")
    moments = {
        f"{index}.{name}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }
    save_file(moments, new / "optimizer.safetensors")
    write_json(new / "state.json", state)
    replace_folder(new, folder)


def load_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.AdamW
) -> dict[str, float]:
    """Restore what `save_checkpoint` wrote; step 0 where there is none."""
    if not folder.exists():
        return {"step": 0, "seconds": 0.0}
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        index, name = key.split(".")
        entries.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": entries})
    state: dict[str, float] = json.loads((folder / "state.json").read_text())
    return state


class Trainer:
    """One training run in a work folder."""

    def __init__(self, recipe: Recipe, work: Path, out: Path) -> None:
        self.recipe, self.work, self.out = recipe, work, out
        data, training = recipe.data, recipe.training
        documents = list(library_documents(left_out=TESTS))
        train, held_out = split_documents(documents, data.held_out, recipe.seed)
        self.tokenizer = self._tokenizer(train)
        stream = token_stream(self.tokenizer, train)
        self.batches = Batches(stream, data.context, BOS_ID, training.batch_contexts, recipe.seed)
        self.held_out = HeldOut(held_out, self.tokenizer, data.context)
        self.model = build_model(recipe)
        self.optimizer = build_optimizer(self.model, training)
        state = load_checkpoint(work / "checkpoint", self.model, self.optimizer)
        self.step, self.seconds = int(state["step"]), state["seconds"]
        n_parameters = sum(p.numel() for p in self.model.parameters())
        click.echo(
            f"{len(train)} files, {len(stream):,} tokens; held out {len(held_out)} files, "
            f"{self.held_out.pieces.numel():,} tokens, "
            f"{1 / self.held_out.tokens_per_byte:.2f} bytes a token; {n_parameters:,} parameters"
        )

    def _tokenizer(self, documents: list[str]) -> Tokenizer:
        """The work folder's tokenizer, trained where there is none."""
        path = self.work / "tokenizer.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            train_tokenizer(documents, self.recipe.data.vocabulary).save(str(path))
        return Tokenizer.from_file(str(path))

    @property
    def progress(self) -> float:
        """How far the schedule is, 0 to 1: by steps or by time, whichever is further on."""
        training = self.recipe.training
        return max(self.step / training.steps, self.seconds / (60 * training.minutes))

    def run(self) -> None:
        """Train to the end of the schedule; log, save and export on the way."""
        training = self.recipe.training
        forward = torch.compile(self.model) if training.compile else self.model
        mark = saved = time.monotonic()
        losses: list[float] = []
        while self.progress < 1:
            losses.append(self._update(forward))
            now = time.monotonic()
            self.seconds += now - mark
            mark = now
            if self.step % training.log_every == 0:
                self._log(losses)
                losses = []
            if now - saved > 60 * training.save_minutes:
                self._save(training.quick_contexts)
                saved = time.monotonic()
        self._save(None)

    def _update(self, forward: Callable[..., Any]) -> float:
        training = self.recipe.training
        rate = learning_rate(training, self.step, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = mean_loss(forward, self.batches[self.step])
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        value = loss.item()
        if not math.isfinite(value):
            raise click.ClickException(
                f"the loss is {value} at step {self.step}: lower learning_rate in the recipe"
            )
        return value

    def _log(self, losses: list[float]) -> None:
        training = self.recipe.training
        tokens = self.step * training.batch_contexts * (self.recipe.data.context - 1)
        left = self.seconds / self.progress - self.seconds
        click.echo(
            f"step {self.step}/{training.steps}  loss {np.mean(losses):.4f}  "
            f"lr {self.optimizer.param_groups[0]['lr']:.2e}  "
            f"{tokens / self.seconds:,.0f} tokens/s  left {left / 60:.1f} min"
        )

    def _save(self, n_contexts: int | None) -> None:
        """Checkpoint, export, and validate on n_contexts evenly spaced pieces (None: on all)."""
        state = {"step": self.step, "seconds": self.seconds}
        save_checkpoint(self.work / "checkpoint", self.model, self.optimizer, state)
        export(self.model, self.tokenizer, self.out)
        pieces = self.held_out.pieces
        if n_contexts is not None:
            pieces = pieces[:: max(1, len(pieces) // n_contexts)]
        loss = validate(self.model, pieces)
        bits = self.held_out.bits_per_byte(loss)
        which = "all held-out text" if n_contexts is None else f"{len(pieces)} held-out pieces"
        click.echo(f"step {self.step}  {which}: loss {loss:.4f}, {bits:.3f} bits per byte")


@click.command()
@click.option("--recipe", type=Path, default=Path(__file__).with_name("recipe.toml"))
@click.option("--work", type=Path, required=True, help="Folder for checkpoints.")
@click.option("--out", type=Path, required=True, help="Folder for the model, replaced as it goes.")
@click.option("--minutes", type=float, help="End by then, in place of the recipe's limit.")
@click.option("--steps", type=int, help="In place of the recipe's steps.")
def main(recipe: Path, work: Path, out: Path, minutes: float | None, steps: int | None) -> None:
    """Train the demo's language model, or continue from the checkpoint in --work."""
    settings = read_recipe(recipe)
    changes = {k: v for k, v in (("minutes", minutes), ("steps", steps)) if v is not None}
    training = settings.training.model_copy(update=changes)
    settings = settings.model_copy(update={"training": training})
    torch.set_num_threads(training.threads)
    Trainer(settings, work, out).run()


if __name__ == "__main__":
    main()
