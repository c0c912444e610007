#!/usr/bin/env bash
# Every kind of autoencoder on the small world: pipelines/ground_truth/small.sh [FOLDER [STEPS]]
# The same command continues what was interrupted. PYTHON names the interpreter.
set -euo pipefail
here=$(dirname "$0")
world=${1:-ground-truth-small}
steps=${2:-1950}
python=${PYTHON:-python}
if [ ! -e "$world/store.zarr" ]; then
  rm -rf "$world"
  "$python" "$here/generate.py" "$world" --world small
fi
# What steers L0 towards the true 15, and a rate and a revival by which so short a run gets somewhere.
shared=(--set n_latents=1024 --set "steps=$steps" --set lr=3e-3 --set lr_scaling=none
  --set lr_decay=0.2 --set revive_every=100 --set warmup_steps=100 --set scale_schedule=false)
for kind in $("$python" -c 'from cpsae.sae.kinds import kind_names; print(*kind_names())'); do
  steered=$("$python" -c "from cpsae.sae.kinds import load_kind
keys = load_kind('$kind').Settings.model_fields
values = {'k': 15, 'target_l0': 15, 'l1': 0.3}
print(next((f'--set {key}={value}' for key, value in values.items() if key in keys), ''))")
  "$python" "$here/train.py" "$world" --preset "$kind" $steered "${shared[@]}" --seeds 0,1,2 \
    --name "$kind" --out "$world/runs-$steps"
done
"$python" "$here/score.py" "$world" "$world/runs-$steps"
