"""The registered Zarr data type `bfloat16`, taught to zarr-python by importing this module.

Name and encoding are those of Zarr's registry of extensions, so that other readers (tensorstore)
know them too: two bytes a value, the upper half of the float32.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import ml_dtypes
import numpy as np
from zarr.core.buffer.cpu import Buffer
from zarr.core.dtype import data_type_registry
from zarr.core.dtype.npy.float import BaseFloat

__all__ = ["BFloat16", "Buffer"]


@dataclass(frozen=True, kw_only=True)
class BFloat16(BaseFloat[Any, Any]):
    """`bfloat16` as a Zarr v3 data type over `ml_dtypes.bfloat16`."""

    dtype_cls: ClassVar[Any] = type(np.dtype(ml_dtypes.bfloat16))
    _zarr_v3_name: ClassVar[str] = "bfloat16"
    _zarr_v2_names: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_native_dtype(cls, dtype: Any) -> Self:
        """Raises DataTypeValidationError for any other dtype."""
        if dtype == np.dtype(ml_dtypes.bfloat16):
            return cls()
        raise _validation_error()(f"Invalid data type: {dtype}. Expected bfloat16")

    def to_native_dtype(self) -> Any:
        """`ml_dtypes.bfloat16` has one byte order, so the one of the base class cannot be set."""
        return np.dtype(ml_dtypes.bfloat16)

    @property
    def item_size(self) -> int:
        """Bytes a value."""
        return 2


def _validation_error() -> type[Exception]:
    """What zarr catches where a type is not the one that is looked for; it moved after 3.1."""
    from importlib import import_module

    errors = import_module("zarr.errors")
    if not hasattr(errors, "DataTypeValidationError"):
        errors = import_module("zarr.core.dtype.common")
    found: type[Exception] = errors.DataTypeValidationError
    return found


data_type_registry.register("bfloat16", BFloat16)
