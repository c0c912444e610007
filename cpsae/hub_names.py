"""What a store calls its model and its text: a name of the hub, or a path of some machine."""

from pathlib import PurePath


def is_path(name: str | None) -> bool:
    """Whether this is no name of the hub, which has one slash at most."""
    if not name:
        return False
    path = PurePath(name)
    return path.is_absolute() or name[0] in ".~" or len(path.parts) > 2 or path.suffix == ".gguf"


def last_part(name: str | None) -> str | None:
    """What of it other machines may know: of a path its last part, else the name."""
    return PurePath(name).name if name is not None and is_path(name) else name
