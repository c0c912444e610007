"""What all settings share: frozen pydantic models that refuse unknown keys."""

import os
import re
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from cpsae.config.wording import key_of, one_line
from cpsae.errors import SettingsError

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
DEVICE_NAME = re.compile(r"auto|cpu|cuda(:\d+)?")
_COUNT = re.compile(r"\s*(\d[\d_]*(?:\.\d+)?)\s*([kmb]?)\s*", re.IGNORECASE)


class Record(BaseModel):
    """A validated, immutable group of values that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Settings(Record):
    """What a user asked for; frozen, so that nothing downstream can edit it."""

    inlined: ClassVar[tuple[str, ...]] = ()
    """Groups whose keys are flat outside: they are given, shown and blamed without the group."""

    def __init__(self, **values: Any) -> None:
        """Raises SettingsError, one line, where a value is wrong or a key unknown."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems = [(key_of(problem, self.inlined), problem) for problem in error.errors()]
            raise SettingsError(one_line(problems, {})) from None

    # pydantic, where it validates a dictionary, then does not come by here: `resolve` and a group's
    # own group want its errors as they are, to say where a value is from
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def parse_count(value: Any) -> Any:
    """Turn '10M', '512k' or '1_000' into an int; leave anything that is not text alone.

    Raises ValueError where the text is no count or not a whole number ('1.5' is refused,
    '1.5k' is 1500), and for true and false, which Python counts with.
    """
    if isinstance(value, bool):
        raise ValueError(f"{value} is no count: write a whole number")
    if not isinstance(value, str):
        return value
    match = _COUNT.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is no count: write a whole number, or one like 512k or 10M")
    number, suffix = match[1].replace("_", ""), match[2].lower()
    scaled = Decimal(number) * _SUFFIXES[suffix]  # in floats 1.005k would not be whole
    if scaled != int(scaled):
        raise ValueError(f"{value!r} is not a whole number")
    return int(scaled)


def _path_as_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


PathText = Annotated[str, BeforeValidator(_path_as_text)]
"""A path as text, which may be given as a pathlib.Path."""


Count = Annotated[int, BeforeValidator(parse_count)]


def _known_device(value: str) -> str:
    if not DEVICE_NAME.fullmatch(value):
        raise ValueError(f"{value!r} is no device: take auto, cpu, cuda or one like cuda:1")
    return value


Device = Annotated[str, AfterValidator(_known_device)]
