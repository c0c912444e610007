"""SAEBench's core evaluation of a cpsae run, on the store's held-out contexts.

    python pipelines/saebench/core.py RUN --model FOLDER|NAME [--contexts N] [--out FOLDER]
        [--exported FOLDER]

Writes SAEBench's own result file into --out, and prints its figures beside those of the run's
evaluation.json under `saebench/`, where `cpsae evaluate RUN --model` has been run on as many
contexts. Batches are of 16 contexts, in the store's order, as in `cpsae evaluate`. With --exported
it is what `cpsae export RUN --to saebench` wrote that is evaluated.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sae_bench.evals.core.eval_config import CoreEvalConfig
from sae_bench.evals.core.main import (
    ActivationsStore,
    calculate_misc_metrics,
    run_evals,
    save_single_eval_result,
)
from sae_bench.sae_bench_utils import (
    get_eval_uuid,
    get_sae_bench_version,
    get_sae_lens_version,
)
from sae_bench.sae_bench_utils.general_utils import load_and_format_sae
from sae_lens import SAE
from side_by_side import flat, table
from wrapped import WrappedRun, enter_beside, load_model, store_of

from cpsae.store import Store

BATCH = 16
"""Contexts of a batch, SAEBench's default, on which some of its figures depend."""


def held_out_tokens(store: Store, contexts: int | None) -> Dataset:
    """Whole batches of held-out contexts, at most `contexts`."""
    part, record = store.evaluation, store.manifest.contexts
    if part is None or record is None:
        raise SystemExit(f"{store.path}: holds out no contexts; SAEBench needs tokens")
    there = part.vectors // record.rows
    count = min(contexts or there, there) // BATCH * BATCH
    if not count:
        raise SystemExit(f"{store.path}: {there} held-out contexts; SAEBench takes {BATCH} at once")
    return Dataset.from_dict({"tokens": part.tokens(range(count)).tolist()})


def evaluate(
    sae: WrappedRun, model: Any, tokens: Dataset, dtype: str
) -> tuple[dict[str, Any], dict[str, Any], CoreEvalConfig]:
    """Scalars by group, figures of features, and the settings."""
    length = len(tokens[0]["tokens"])
    batches = len(tokens) // BATCH
    config = CoreEvalConfig(
        model_name=sae.cfg.model_name,
        batch_size_prompts=BATCH,
        n_eval_reconstruction_batches=batches,
        n_eval_sparsity_variance_batches=batches,
        exclude_special_tokens_from_reconstruction=True,
        dataset="the store's held-out contexts",
        context_size=length,
        compute_kl=True,
        compute_ce_loss=True,
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
        llm_dtype=dtype,
    )
    store = ActivationsStore.from_sae(
        model, sae, tokens, context_size=length, streaming=False, device=str(sae.device)
    )
    named = model.tokenizer
    special = {named.pad_token_id, named.eos_token_id, named.bos_token_id}
    scalars, features = run_evals(
        sae, store, model, config, ignore_tokens=special - {None}, verbose=True
    )
    scalars["misc_metrics"] = calculate_misc_metrics(features)
    return scalars, features, config


def autoencoder(run: Path, exported: Path | None, model: str, device: str) -> Any:
    """What SAEBench is handed: the run itself, or SAELens' object of its export."""
    if exported is None:
        return WrappedRun(run, model, device)
    import cpsae.interop.saelens_classes  # noqa: F401

    return SAE.load_from_disk(exported, device=device)


def main() -> None:
    """Evaluate, save, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", required=True, help="a folder or a name of TransformerLens")
    parser.add_argument("--store", type=Path, help="by default the run's own")
    parser.add_argument("--exported", type=Path, help="a folder of `cpsae export --to saebench`")
    parser.add_argument("--contexts", type=int, help="by default all that are held out")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("saebench-core"))
    asked = parser.parse_args()
    run, out = asked.run.resolve(), asked.out.resolve()
    exported = asked.exported.resolve() if asked.exported else None
    tokens = held_out_tokens(store_of(run, asked.store), asked.contexts)
    name = enter_beside(asked.model)
    sae = autoencoder(run, exported, name, asked.device)
    loaded = load_and_format_sae(run.name, sae, asked.device)
    assert loaded is not None, "an object was handed in"
    sae = loaded[1].to(device=torch.device(asked.device), dtype=getattr(torch, asked.dtype))
    model = load_model(name, asked.device, asked.dtype)
    scalars, features, config = evaluate(sae, model, tokens, asked.dtype)
    out.mkdir(parents=True, exist_ok=True)
    result = {"eval_cfg": config, "metrics": scalars, "feature_metrics": features}
    result |= {"sae_id": "custom_sae", "sae_set": run.name}
    path = str(out / f"{run.name}_eval_results.json")
    versions = get_sae_lens_version(), get_sae_bench_version()
    save_single_eval_result(result, get_eval_uuid(), *versions, path, sae)
    file = run / "evaluation.json"
    ours = json.loads(file.read_text()) if file.exists() else {}
    print(f"{path}: {len(tokens)} contexts\n\n{table(flat(scalars), ours)}")


if __name__ == "__main__":
    main()
