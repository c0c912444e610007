"""What a hostile or damaged file may hold, from a good one: bytes changed anywhere, values changed
in JSON, and in the header of safetensors."""

import json
import random
from typing import Any

HOSTILE: list[Any] = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**15,
    -(10**30),
    1e308,
    0.5,
    "",
    "x",
    "nan",
    "../../outside/x",
    "/etc/passwd",
    "a" * 100_000,
    "\x00",
    "\ud800",
    "<script>alert(1)</script>",
    [],
    {},
    [[[[]]]],
    [10**12, 10**12],
    {"": {}},
]
NUMBERS = [b"\xff" * 8, b"\x00" * 8, (10**15).to_bytes(8, "little")]
RAW = ["NaN", "Infinity", "1e999", "[" * 5000, '"', "{}{}", ""]
"""Put in as they are: no JSON, or more than Python's limits."""


def mutated(content: bytes, name: str, chance: random.Random) -> bytes:
    """One to three changes of a file of this name."""
    for _ in range(chance.randint(1, 3)):
        if name.endswith((".json", ".jsonl")) and chance.random() < 0.8:
            content = _json(content, chance)
        elif name.endswith(".safetensors") and chance.random() < 0.7:
            content = _safetensors(content, chance)
        else:
            content = _bytes(content, chance)
    return content


def _bytes(content: bytes, chance: random.Random) -> bytes:
    raw = bytearray(content)
    at = chance.randrange(len(raw) + 1)
    if len(raw) > 64 and chance.random() < 0.5:  # headers are where parsers are
        at = chance.randrange(64)
    match chance.randrange(7):
        case 0 if at < len(raw):
            raw[at] ^= 1 << chance.randrange(8)
        case 1:
            del raw[at:]
        case 2:
            raw[at:at] = chance.randbytes(chance.randint(1, 32))
        case 3:
            raw[at : at + chance.randint(1, 64)] = b""
        case 4:
            raw[at : at + 8] = chance.choice(NUMBERS)
        case 5:
            raw[at : at + 64] = raw[:64]
        case _:
            raw[at : at + 16] = chance.randbytes(16)
    return bytes(raw)


def _json(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines() if content.count(b"\n{") else [content]
    at = chance.randrange(len(lines)) if lines else 0
    try:
        value = json.loads(lines[at])
    except (ValueError, RecursionError, IndexError):
        return _bytes(content, chance)
    marker = "\x00here\x00"
    raw = chance.random() < 0.15
    changed = _with_one(value, marker if raw else chance.choice(HOSTILE), chance)
    text = json.dumps(changed)
    if raw:
        text = text.replace(json.dumps(marker), chance.choice(RAW))
    lines[at] = text.encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def _with_one(value: Any, other: Any, chance: random.Random) -> Any:
    """`value` with one of its places holding `other`, or without it."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.1:
        return other
    inner = dict(value) if isinstance(value, dict) else list(value)
    keys: Any = list(inner) if isinstance(inner, dict) else range(len(inner))
    key = chance.choice(keys)
    if chance.random() < 0.1:
        del inner[key]
    elif isinstance(inner, dict) and chance.random() < 0.05:
        inner[chance.choice(["", "../x", "extra", "__class__"])] = other
    else:
        inner[key] = _with_one(inner[key], other, chance)
    return inner


def _safetensors(content: bytes, chance: random.Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = _json(content[8 : 8 + length], chance)
    claimed = len(header) if chance.random() < 0.9 else chance.choice([0, 2**63, 10**15, 7])
    return claimed.to_bytes(8, "little") + header + content[8 + length :]
