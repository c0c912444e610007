"""Stage 1 as one calls it: an extraction that continues, or begins afresh beside the old store."""

from cpsae.config import ExtractSettings
from cpsae.errors import SettingsError
from cpsae.events import OnEvent, ignore
from cpsae.extraction.extract import Extraction
from cpsae.extraction.extract import extract as run_extraction
from cpsae.workers import Worker


def extract(
    settings: ExtractSettings, *, fresh: bool = False, on_event: OnEvent = ignore
) -> Extraction:
    """Continue the store at `settings.store`, or with `fresh` rename it aside and begin again.

    Raises a CpsaeError where the user has to do something; what is committed stays.
    """
    worker = Worker.from_environment()
    if fresh and worker.count > 1:
        raise SettingsError("--fresh: cannot be used with several workers; move the store aside")
    return run_extraction(settings, on_event, worker, fresh)
