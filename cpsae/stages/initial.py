"""The run that a fit goes on from, found and read, and the settings that go with it."""

import hashlib
from pathlib import Path
from typing import Any

from cpsae.errors import RunError
from cpsae.sae.files import DESCRIPTION, WEIGHTS
from cpsae.sae.kinds import load_kind
from cpsae.stages.load import load
from cpsae.training.initial import Initial
from cpsae.training.recorded import Recorded
from cpsae.training.run_folder import RunFolder


def find_initial(path: str | Path | None, run: RunFolder | None = None) -> Initial | None:
    """The finished run at `path`; None for none. `run` is the one that goes on from it: where that
    was begun already, the other may be gone. Raises RunError where it is no finished run."""
    if path is None:
        return None
    place = RunFolder(path).path.absolute()
    try:
        sae = load(place)
        files = [(place / name).read_bytes() for name in (WEIGHTS, DESCRIPTION)]
    except (RunError, OSError):
        known = run.begun_from() if run is not None and run.started else None
        if known is None or known["path"] != str(place) or (place / WEIGHTS).exists():
            raise
        return Initial(place, known["fingerprint"], None)
    return Initial(place, hashlib.sha256(b"".join(files)).hexdigest(), sae)


def settings_of(path: str | Path, whole: bool) -> tuple[str, dict[str, Any]]:
    """The preset of a run that is gone on from, and dotted keys of settings: with `whole` all that
    it was trained with, else those alone that its weights settle. Of a converted run nothing is
    known of its training: its preset is that of its kind. Raises RunError where it is no run."""
    folder = RunFolder(path)
    known = Recorded.of(folder.read_config(), folder.path)
    settled = {"n_latents": known.n}
    normalize = known.settings["normalize"]
    if known.source is None:
        every = known.settings | settled
        return known.preset, every if whole else {**settled, "normalize": normalize}
    own = {key: known.settings[key] for key in load_kind(known.kind).inference_settings}
    settled |= own if whole else {}
    return known.kind, settled if normalize == "none" else {**settled, "normalize": normalize}
