"""JSON as the standard has it."""

import json


def read_strictly(text):
    """The value of a JSON text. ValueError for NaN and Infinity, which JSON does not have."""

    def refuse(name):
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)
