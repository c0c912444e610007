"""How many rows a store holds out, whoever makes it."""

_MOST = 200_000


def held_out_rows(vectors: int) -> int:
    """Rows of the evaluation part that goes with `vectors` training rows: a hundredth, but a tenth
    while that is under 20,000; at least 1, at most 200,000."""
    share = max(vectors // 100, min(vectors // 10, 20_000))
    return max(1, min(_MOST, share))
