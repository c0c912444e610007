"""What SAELens' CacheActivationsRunner leaves: a data set in Arrow files, whose rows are contexts:
the activations at a hook, (T, D), and the ids of the tokens.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from cpsae.errors import SourceError, first_line
from cpsae.interop.rows import Array, FoundRows, as_rows
from cpsae.json_files import read_object

STATE = "state.json"
TOKENS = "token_ids"
_RUNNER = "cache_activations_runner_cfg.json"
"""Beside what was pushed to the hub."""


def read_cached(folder: Path, column: str | None) -> FoundRows:
    """The column of that name, or the only one of activations. Raises SourceError where there is
    none, or files are missing or damaged."""
    state = read_object(folder / STATE, SourceError, "copy the folder whole")
    if state.get("_indices_data_files"):
        raise SourceError(f"{folder}: holds a selection of rows; load it and save it again")
    files, there = _named(folder, state), {entry.name for entry in folder.iterdir()}
    missing = [file.name for file in files if file.parent != folder or file.name not in there]
    if missing or not files:
        raise SourceError(f"{folder}: lacks {', '.join(missing) or 'data'}; copy it whole")
    name, arrays = column, []
    tokens = False
    for file in files:
        table = _table(file)
        name = name or _only_one(folder, table)
        if name not in table.column_names:
            raise SourceError(
                f"{file}: has no column {name}; there are {', '.join(table.column_names)}"
            )
        tokens = tokens or TOKENS in table.column_names
        arrays += list(_contexts(file, table, name))
    notes = ["token ids are left out: a store of activations from elsewhere has none"]
    return FoundRows(
        as_rows(str(folder), arrays),
        tuple(files),
        hook_name=name,
        model=_runner(folder).get("model_name"),
        notes=tuple(notes) if tokens else (),
    )


def _named(folder: Path, state: Mapping[str, Any]) -> list[Path]:
    """The files of rows that a data set says it has."""
    entries = state.get("_data_files")
    named = [e.get("filename") for e in entries] if _are_objects(entries) else []
    return [folder / str(name) for name in named]


def _are_objects(value: Any) -> TypeGuard[list[Mapping[str, Any]]]:
    return isinstance(value, list) and all(isinstance(each, Mapping) for each in value)


def _table(file: Path) -> Any:
    """Mapped, in the stream format, which `datasets` writes."""
    import pyarrow as pa

    try:
        table = pa.ipc.open_stream(pa.memory_map(str(file))).read_all()
        table.validate(full=True)  # else offsets out of bounds end the process
        return table
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{file}: cannot be read ({first_line(error)}); copy it again") from None


def _shapes(table: Any) -> dict[str, tuple[int, int]]:
    """(T, D) of the columns that are matrices, as `datasets` describes them."""
    described = (table.schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(described).get("info", {}).get("features", {})
        return {
            name: (int(f["shape"][0]), int(f["shape"][1]))
            for name, f in features.items()
            if isinstance(f, Mapping) and f.get("_type") == "Array2D"
        }
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return {}


def _only_one(folder: Path, table: Any) -> str:
    names = list(_shapes(table))
    if len(names) != 1:
        told = ", ".join(names or table.column_names)
        raise SourceError(
            f"{folder}: holds {len(names)} columns of activations; name one with --tensor: {told}"
        )
    return names[0]


def _contexts(file: Path, table: Any, name: str) -> Iterator[Array]:
    """(C, T, D) of each piece of a column, over the file's own memory."""
    shape = _shapes(table).get(name)
    if shape is None:
        raise SourceError(f"{file}: {name} is no column of activations (positions, d)")
    for chunk in table.column(name).chunks:
        lists = getattr(chunk, "storage", chunk)
        values = lists.flatten().flatten()
        if lists.null_count or values.null_count or len(values) != len(lists) * shape[0] * shape[1]:
            raise SourceError(f"{file}: {name}: not every context has the shape {shape}")
        yield values.to_numpy(zero_copy_only=True).reshape(len(lists), *shape)


def _runner(folder: Path) -> dict[str, Any]:
    """What the runner was asked for, where that is known."""
    path = folder / _RUNNER
    return read_object(path, SourceError, "remove it") if path.is_file() else {}
