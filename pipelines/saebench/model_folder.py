"""A .gguf file, de-quantised, as a folder that TransformerLens loads by its path.

    python pipelines/saebench/model_folder.py MODEL.gguf OUT

TransformerLens builds a table of positions and a mask for the longest context that config.json
names, so that --positions is written there; rotary models compute the same with fewer. The name of
OUT must not hold "llama" or "gemma": TransformerLens takes those for models on the hub.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

LONGEST = 1024
"""What sae-probes cuts texts to."""


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--positions", type=int, default=LONGEST)
    asked = parser.parse_args()
    source = {"gguf_file": asked.model.name}
    model = AutoModelForCausalLM.from_pretrained(
        asked.model.parent,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        **source,
    )
    # Its weights are plain by now, but transformers still refuses to save what came from blocks.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.max_position_embeddings = asked.positions
    model.save_pretrained(asked.out)
    AutoTokenizer.from_pretrained(asked.model.parent, **source).save_pretrained(asked.out)


if __name__ == "__main__":
    main()
