#!/bin/bash
# The figures of docs/results.md. MODEL: the .gguf file of SmolLM2-135M-Instruct (or its folder);
# TEXT: a corpus of at least 320,000 tokens. Interrupted, it continues where it stopped.
set -euo pipefail
: "${MODEL:?the path of SmolLM2-135M-Instruct}" "${TEXT:?the path of a corpus}"
out=${OUT:-smollm2}

cpsae extract --model "$MODEL" --dataset "$TEXT" --layer 19 --tokens 128 --vectors 300k \
    --store "$out/acts.zarr"

fit() { # NAME OPTION...
    cpsae fit --store "$out/acts.zarr" --batch-size 1024 --out "$out/runs/$1" "${@:2}"
}
recipes=$(dirname "$0")/recipes
fit paper --steps 1500
fit baseline --steps 1500 --preset baseline
fit baseline-300 --steps 300 --preset baseline
fit layer-variance --steps 1500 --recipe "$recipes/reading-layer-variance.toml"
fit raw --steps 1500 --recipe "$recipes/reading-raw.toml"
fit unit --steps 1500 --recipe "$recipes/reading-unit.toml"
fit all-enabled --steps 1500 --recipe "$recipes/ablation-all-enabled.toml"
fit fixed-growth --steps 1500 --recipe "$recipes/ablation-fixed-growth.toml"
fit no-ema --steps 1500 --recipe "$recipes/ablation-no-ema.toml"
fit batchtopk --steps 1500 --preset batchtopk
