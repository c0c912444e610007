"""One column of a Parquet or Arrow file, batch by batch."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpsae.corpus.fields import Field, named_twice
from cpsae.errors import CorpusError, first_line

if TYPE_CHECKING:
    import pyarrow as pa

ARROW_FILE = b"ARROW1\0\0"
PARQUET = b"PAR1"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
"""Of an Arrow stream; before Arrow 0.15 its second half alone."""

_ROWS_AT_ONCE = 256
_COPIED_AT_ONCE = 2**20

Values = Iterator[tuple[str, Any]]
"""The field's value in each row, with where it is, for an error."""


def parquet_values(file: io.BufferedReader | Path, name: str, field: Field) -> Values:
    """The column of a Parquet file that `field` names. Raises CorpusError where the file is
    damaged, or has no such column, or one of another type."""
    import pyarrow.parquet as pq

    with _ArrowErrors(name, "Parquet"), ExitStack() as stack:
        table = stack.enter_context(pq.ParquetFile(_seekable(file, stack)))
        _check_column(table.schema_arrow, name, field)
        batches = table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[field.name])
        yield from _values(batches, name, field)


def arrow_values(file: io.BufferedReader | Path, name: str, field: Field) -> Values:
    """The column of an Arrow file, in the stream format (what `datasets` writes) or the file
    format (Feather), that `field` names. Raises CorpusError as `parquet_values` does."""
    import pyarrow as pa

    with _ArrowErrors(name, "Arrow"), ExitStack() as stack:
        opened = _seekable(file, stack)
        source = stack.enter_context(
            pa.memory_map(str(opened)) if isinstance(opened, Path) else pa.PythonFile(opened, "r")
        )
        is_file = source.read(len(ARROW_FILE)) == ARROW_FILE
        if not is_file:
            _refuse_no_end(source, name)
        source.seek(0)
        reader: Any = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
        _check_column(reader.schema, name, field)
        batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
        yield from _values(batches, name, field)


def _refuse_no_end(source: Any, name: str) -> None:
    """Arrow takes a stream that was cut between two batches for one that ends there."""
    source.seek(0)
    end = _STREAM_END if source.read(4) == _STREAM_END[:4] else _STREAM_END[4:]
    source.seek(max(0, source.size() - len(end)))
    if source.read(len(end)) != end:
        raise CorpusError(
            f"{name}: is no whole Arrow stream (it has no mark at its end); fetch or write it again"
        )


class _ArrowErrors:
    """Arrow's errors within, as a CorpusError that calls the file by `name`."""

    def __init__(self, name: str, what: str) -> None:
        self._name, self._what = name, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: Any, error: BaseException | None, _trace: Any) -> None:
        import pyarrow as pa

        if isinstance(error, pa.ArrowException | UnicodeDecodeError):
            raise CorpusError(
                f"{self._name}: is not a whole {self._what} file ({first_line(error)}); fetch or "
                "write it again"
            ) from error


def _seekable(file: io.BufferedReader | Path, stack: ExitStack) -> Any:
    """The file itself, or, of what is compressed, a copy on the disk for as long as it is read."""
    if isinstance(file, Path):
        return file
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed with the stack
    stack.enter_context(copy)
    while data := file.read(_COPIED_AT_ONCE):
        copy.write(data)
    copy.seek(0)
    return copy


def _check_column(schema: "pa.Schema", name: str, field: Field) -> None:
    if field.name not in schema.names:
        raise field.missing(name, schema.names)
    if schema.names.count(field.name) > 1:
        raise named_twice(name, field.name)
    column = schema.field(field.name).type
    if not _fits(column, field):
        raise field.wrong(name, str(column))


def _fits(column: Any, field: Field) -> bool:
    from pyarrow import types

    if types.is_null(column):
        return True
    if field.kind == "text":
        if types.is_dictionary(column):
            column = column.value_type
        return any(
            of(column) for of in (types.is_string, types.is_large_string, types.is_string_view)
        )
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view)
    if not any(of(column) for of in lists):
        return False
    values = column.value_type
    return field.kind == "messages" or any(of(values) for of in (types.is_integer, types.is_null))


def _values(batches: Any, name: str, field: Field) -> Values:
    before = 0
    for whole in batches:
        for first in range(0, whole.num_rows, _ROWS_AT_ONCE):
            column = whole.column(field.name).slice(first, _ROWS_AT_ONCE)
            values = _arrays(column, name) if field.kind == "ids" else column.to_pylist()
            for number, value in enumerate(values, before + 1):
                yield f"{name}, row {number}", value
            before += len(column)


def _arrays(column: Any, name: str) -> Iterator[Any]:
    """The ids of each row: Python's own numbers would take far longer, and 30 times the memory."""
    for row in column:
        ids = row.values
        if ids is not None and ids.null_count:
            raise CorpusError(f"{name}: expected token ids, found null among them; mend the rows")
        yield None if ids is None else ids.to_numpy(zero_copy_only=False)
