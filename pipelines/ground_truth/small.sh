#!/usr/bin/env bash
# Every kind of autoencoder on the small world: pipelines/ground_truth/small.sh [FOLDER [STEPS]]
# The same command continues what was interrupted. PYTHON names the interpreter.
set -euo pipefail
here=$(dirname "$0")
world=${1:-ground-truth-small}
steps=${2:-1400}
python=${PYTHON:-python}
if [ ! -e "$world/store.zarr" ]; then
  rm -rf "$world"
  "$python" "$here/generate.py" "$world" --world small
fi
for kind in $("$python" -c 'from cpsae.sae.kinds import kind_names; print(*kind_names())'); do
  # Kinds that have no k take their own defaults; where L0 is to be equal, set what steers it.
  k=$("$python" -c "from cpsae.sae.kinds import load_kind
print('--set k=22' if 'k' in load_kind('$kind').Settings.model_fields else '')")
  "$python" "$here/train.py" "$world" --preset "$kind" $k --set n_latents=2048 \
    --set "steps=$steps" --seeds 0,1,2 --name "$kind" --out "$world/runs-$steps"
done
"$python" "$here/score.py" "$world" "$world/runs-$steps"
