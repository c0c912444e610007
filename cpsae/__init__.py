"""cpsae trains sparse autoencoders on the activations of language models, in two resumable stages.

The public names below are imported when they are first used, so that `import cpsae` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_HOME_OF = {
    "extract": "cpsae.api.stages",
    "fit": "cpsae.api.stages",
    "sweep": "cpsae.api.stages",
    "evaluate": "cpsae.api.measuring",
    "evaluate_each": "cpsae.api.measuring",
    "compare": "cpsae.api.measuring",
    "report": "cpsae.api.measuring",
    "export": "cpsae.stages.export",
    "convert": "cpsae.stages.convert",
    "import_rows": "cpsae.stages.import_",
    "load": "cpsae.stages.load",
    "load_model": "cpsae.stages.features",
    "features_of": "cpsae.stages.features",
    "open_store": "cpsae.store",
    "write_store": "cpsae.store",
    "verify_store": "cpsae.api.measuring",
    "Store": "cpsae.store",
    "ActivationFeed": "cpsae.training.feed",
    "SparseAutoencoder": "cpsae.sae.autoencoder",
    "ExtractSettings": "cpsae.config",
    "FitSettings": "cpsae.training.settings",
    "CpsaeError": "cpsae.errors",
}

__all__ = ["__version__", *_HOME_OF]

if TYPE_CHECKING:
    from cpsae.api.measuring import compare as compare
    from cpsae.api.measuring import evaluate as evaluate
    from cpsae.api.measuring import evaluate_each as evaluate_each
    from cpsae.api.measuring import report as report
    from cpsae.api.measuring import verify_store as verify_store
    from cpsae.api.stages import extract as extract
    from cpsae.api.stages import fit as fit
    from cpsae.api.stages import sweep as sweep
    from cpsae.config import ExtractSettings as ExtractSettings
    from cpsae.errors import CpsaeError as CpsaeError
    from cpsae.sae.autoencoder import SparseAutoencoder as SparseAutoencoder
    from cpsae.stages.convert import convert as convert
    from cpsae.stages.export import export as export
    from cpsae.stages.features import features_of as features_of
    from cpsae.stages.features import load_model as load_model
    from cpsae.stages.import_ import import_rows as import_rows
    from cpsae.stages.load import load as load
    from cpsae.store import Store as Store
    from cpsae.store import open_store as open_store
    from cpsae.store import write_store as write_store
    from cpsae.training.feed import ActivationFeed as ActivationFeed
    from cpsae.training.settings import FitSettings as FitSettings


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'cpsae' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
