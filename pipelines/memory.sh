#!/bin/bash
# The memory table of docs/performance.md: extract and fit on a store of 200,000 and of 2,000,000
# vectors of the demo's model (layer 0, d = 256), over the standard library's source.
set -euo pipefail
here=$(dirname "$0")
out=${OUT:-memory}
mkdir -p "$out"
python -c "import sys; from pathlib import Path; from cpsae.demo.corpus import write_corpus; write_corpus(Path(sys.argv[1]))" "$out/corpus.jsonl"
model=$(python -c "from cpsae.demo.run import MODEL; print(MODEL)")

for vectors in 200k 2M; do
    echo "extract $vectors"
    python "$here/peak_memory.py" cpsae extract -q --model "$model" --dataset "$out/corpus.jsonl" \
        --layer 0 --tokens 128 --vectors "$vectors" --store "$out/$vectors.zarr"
    echo "fit $vectors"
    python "$here/peak_memory.py" cpsae fit -q --store "$out/$vectors.zarr" --steps 976 \
        --out "$out/run-$vectors"
done
