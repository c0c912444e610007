"""Packages that declare kinds, as pip leaves them: modules and their metadata."""

from pathlib import Path


def install(folder: Path, package: str, entries: dict[str, str]) -> Path:
    """Metadata of a package in `folder` that declares these entry points: name to object."""
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}\n" for name, value in entries.items()]
    (metadata / "entry_points.txt").write_text("[cpsae.kinds]\n" + "".join(lines))
    return folder
