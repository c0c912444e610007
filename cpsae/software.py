"""Versions of what computes: recorded in stores and runs."""

import platform
from importlib.metadata import PackageNotFoundError, version

import cpsae

_PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "zarr", "numpy")


def software_versions() -> dict[str, str]:
    """Package name to version, of those that are installed, this one's and Python's."""
    versions = {"python": platform.python_version(), "cpsae": cpsae.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
