"""What is wrong with settings, in one line: our words for pydantic's errors."""

from collections.abc import Mapping
from typing import Any


def one_line(problems: list[tuple[str, Any]], origins: Mapping[str, str]) -> str:
    """What is wrong with which keys, by pydantic's word, and which layers set them."""
    texts = []
    for key, problem in problems:
        reason = _reason(problem)
        sources = blamed(key, origins)
        shown = f" = {problem['input']!r}" if key and not isinstance(problem["input"], dict) else ""
        source = f" (from {', '.join(sources)})" if sources else ""
        texts.append(f"{key}{shown}{source}: {reason}" if key else reason)
    return "; ".join(texts)


_EXPECTED = {
    "greater_than_equal": "expected {ge} or more",
    "greater_than": "expected more than {gt}",
    "less_than_equal": "expected {le} or less",
    "less_than": "expected less than {lt}",
    "literal_error": "expected {expected}",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
    "bool_parsing": "expected true or false",
    "string_unicode": "expected a name or path in UTF-8; rename the file or folder",
    "string_too_short": "expected a text that is not empty",
}
"""Our words for pydantic's types of errors; others keep pydantic's."""


def _reason(problem: Any) -> str:
    template = _EXPECTED.get(problem["type"])
    if template is None:
        return str(problem["msg"]).removeprefix("Value error, ")
    return template.format(**{k: _plain(v) for k, v in problem.get("ctx", {}).items()})


def _plain(bound: Any) -> Any:
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def key_of(problem: Any, inlined: tuple[str, ...]) -> str:
    """The dotted key that a problem is of, as it is given from outside."""
    parts = [str(part) for part in problem["loc"]]
    return ".".join(parts[1:] if parts and parts[0] in inlined else parts)


def blamed(key: str, origins: Mapping[str, str]) -> list[str]:
    """The layers that set a key or, where a rule about a whole group is broken, keys in it."""
    found = {layer for k, layer in origins.items() if k == key or k.startswith(f"{key}.")}
    return sorted(found - {"default"})
