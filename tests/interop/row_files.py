"""Files of rows as other programs write them."""

import json
from pathlib import Path

import numpy as np

HOOK = "blocks.19.hook_resid_post"
T, D = 5, 12


def contexts(count: int = 60, seed: int = 0) -> np.ndarray:
    """(count, T, D) float32, with many norms."""
    random = np.random.default_rng(seed)
    made = random.standard_normal((count, T, D)) * random.uniform(0.5, 2, (count, T, 1))
    return made.astype(np.float32)


def write_cached(
    folder: Path, made: np.ndarray, name: str = HOOK, shards: int = 3, tokens: bool = True
) -> Path:
    """As SAELens' CacheActivationsRunner leaves it: one data set, a file a shard."""
    from datasets import Array2D, Dataset, Features, Sequence, Value

    kinds = {name: Array2D(shape=made.shape[1:], dtype=made.dtype.name)}
    if tokens:
        kinds["token_ids"] = Sequence(Value("int32"), length=made.shape[1])
    folder.mkdir(parents=True)
    files = []
    for number, some in enumerate(np.array_split(made, shards)):
        columns = {name: some}
        if tokens:
            columns["token_ids"] = np.zeros(some.shape[:2], np.int32)
        own = folder.parent / f"{folder.name}-{number}"
        Dataset.from_dict(columns, features=Features(kinds)).save_to_disk(own, num_shards=1)
        file = folder / f"data-{number:05d}-of-{shards:05d}.arrow"
        (own / "data-00000-of-00001.arrow").rename(file)
        files.append({"filename": file.name})
        (folder / "dataset_info.json").write_bytes((own / "dataset_info.json").read_bytes())
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": None}))
    return folder
