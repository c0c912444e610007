"""Tables as wide as the terminal: nothing is cut off, what does not fit goes on below."""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

_GAP = 2
"""Columns that a column takes beside its own text."""
_LEAST = 12
"""Columns that a name keeps, whatever else there is no room for."""


def pairs(rows: Sequence[Sequence[str]], width: int, name_style: str) -> Table:
    """Names, each with its values: beside each other, or below where the terminal is too narrow;
    what is longer yet is folded."""
    count = max(map(len, rows), default=1)
    whole = [[*row, *[""] * (count - len(row))] for row in rows]
    if sum(max(map(cell_len, column)) + _GAP for column in zip(*whole, strict=True)) > width:
        whole = [[name, "\n".join(filter(None, values))] for name, *values in whole]
    table = Table(show_header=False, box=None)
    table.add_column(no_wrap=True, style=name_style)
    for _ in whole[0][1:] if whole else ():
        table.add_column(overflow="fold")
    for row in whole:
        table.add_row(*map(Text, row))
    return table


def grids(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    names: int,
    width: int,
    name_style: str,
) -> Iterator[Table]:
    """A row a thing, whose first `names` columns say which; several tables, each with these and as
    many of the others as fit."""
    widths = [max(map(cell_len, column)) + _GAP for column in zip(columns, *rows, strict=True)]
    widest = max(widths[names:], default=0)
    room = max(width - widest, names * (_LEAST + _GAP))
    over = max(0, sum(widths[:names]) - room)
    own = widths[0] - _GAP
    first = min(own, max(_LEAST, own - over))  # the first is folded: others are short
    taken = first + _GAP + sum(widths[1:names])
    for block in _blocks(widths, names, width - taken):
        table = Table(box=None)
        for column in [*range(names), *block]:
            table.add_column(
                columns[column],
                justify="left" if column < names else "right",
                header_style="",
                style="" if column else name_style,
                overflow="fold",
                no_wrap=column > 0,
                max_width=None if column else first,
            )
        for row in rows:
            table.add_row(*(Text(row[column]) for column in [*range(names), *block]))
        yield table


def _blocks(widths: Sequence[int], names: int, room: int) -> Iterator[list[int]]:
    """The columns after the names, as many at once as fit into `room`, one at least."""
    block: list[int] = []
    for column in range(names, len(widths)):
        if block and sum(widths[other] for other in block) + widths[column] > room:
            yield block
            block = []
        block.append(column)
    yield block
