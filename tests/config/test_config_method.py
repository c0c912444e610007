"""The defaults are the paper's, under the keys that the method's readings give them."""

from typing import get_args

import pytest

from cpsae.config import ExtractSettings
from cpsae.config.resolve import flatten
from cpsae.sae.batch_topk import TopKSettings
from cpsae.sae.kinds.competitive import CompetitionSettings
from cpsae.sae.l1 import L1Settings
from cpsae.training.settings import FitSettings

FIT = {
    "kind": "competitive",
    "n_latents": None,  # the store's d
    "initial_fraction": 0.25,
    "batch_size": 2048,
    "steps": None,  # one epoch
    "optimizer": "adamw",
    "lr": 3e-4,
    "weight_decay": 0.01,
    "warmup_steps": 1000,
    "lr_decay": 0.0,
    "clip": 0.0,
    "l1": 0.04,
    "l1_on": "competed",
    "mse_reduction": "sum",
    "normalize": "layer",
    "max_norm": 10.0,
    "init": "tied",
    "growth": "hybrid",
    "growth_every": 1,
    "utilisation": "mean",
    "importance_beta": 0.9,
    "importance_threshold": 0.01,
    "temperature.base": 0.1,
    "temperature.sensitivity": 0.3,
    "temperature.min": 0.05,
    "temperature.max": 0.3,
    "temperature.momentum": 0.99,
    "temperature.anneal_from": 0.3,
    "temperature.anneal_steps": 2000,
    "competition.over": "enabled",
    "scale_schedule": True,
    "log_every": 10,
    "seed": 0,
    "order_seed": 0,
}
TOPK = {"k": 32, "aux_k": None, "aux_coefficient": 1 / 32, "dead_after": None}
EXTRACT = {
    "model": "google/gemma-2-2b",
    "layer": 19,
    "tokens": 128,
    "vectors": 10_000_000,
    "dataset": "monology/pile-uncopyrighted",
    "store": "acts.zarr",
    "store_dtype": "bfloat16",
    "keep_bos": False,
}
CHOICES = {
    (FitSettings, "utilisation"): ("mean", "any"),
    (L1Settings, "l1_on"): ("competed", "raw"),
    (FitSettings, "normalize"): ("layer", "layer-variance", "unit", "sqrt-d", "none"),
    (FitSettings, "mse_reduction"): ("sum", "mean"),
    (FitSettings, "init"): ("tied", "uniform", "data"),
    (CompetitionSettings, "over"): ("enabled", "active"),
}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [(FitSettings, FIT), (ExtractSettings, EXTRACT), (TopKSettings, TOPK)],
)
def test_defaults(settings, expected):
    found = flatten(settings().model_dump(mode="json"))
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(("group", "key"), list(CHOICES))
def test_readings_that_can_be_chosen(group, key):
    assert get_args(group.model_fields[key].annotation) == CHOICES[group, key]
