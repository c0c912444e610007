#!/usr/bin/env bash
# SynthSAEBench's own board, on a GPU: pipelines/ground_truth/board.sh [FOLDER [PRESET ...]]
# The same command continues what was interrupted. K is the L0 of kinds that have a k, PYTHON the
# interpreter.
set -euo pipefail
here=$(dirname "$0")
world=${1:-synthsaebench}
presets=${*:2}
python=${PYTHON:-python}
k=${K:-35}
if [ ! -e "$world/store.zarr" ]; then
  rm -rf "$world"
  "$python" "$here/generate.py" "$world" --world synthsaebench-16k --vectors 262144 \
    --held-out 500000 --device cuda
fi
for preset in ${presets:-topk batchtopk}; do
  settings=(--set n_latents=16384)
  case $preset in *topk*) settings+=(--set "k=$k") ;; esac
  "$python" "$here/train.py" "$world" --preset "$preset" "${settings[@]}" --samples 200000000 \
    --seeds 0 --name "$preset" --out "$world/runs"
done
"$python" "$here/score.py" "$world" "$world/runs" --saelens
