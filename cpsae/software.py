"""Versions of what computes: recorded in stores and runs."""

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("cpsae", "torch", "transformers", "tokenizers", "datasets", "zarr", "numpy")


def software_versions() -> dict[str, str]:
    """Package name to version, of those that are installed, and Python's."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
