"""What all settings share, those of stage 1, and how options, recipes and presets combine.

The settings of stage 2 live beside what they configure (cpsae.training.settings, cpsae.sae.kinds).
Imports no torch, so that a wrong setting is refused at once.
"""

from cpsae.config.base import Count, Device, Settings, parse_count
from cpsae.config.extraction import ExtractSettings
from cpsae.config.resolve import Resolved, resolve

__all__ = [
    "Count",
    "Device",
    "ExtractSettings",
    "Resolved",
    "Settings",
    "parse_count",
    "resolve",
]
