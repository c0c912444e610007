"""Every setting of the two stages, its default, its bounds, and how options, recipes and presets
combine. Imports no torch, so that a wrong setting is refused at once."""

from cpsae.config.base import Settings, parse_count
from cpsae.config.extraction import ExtractSettings
from cpsae.config.resolve import Resolved, resolve
from cpsae.config.training import CompetitionSettings, FitSettings, TemperatureSettings

__all__ = [
    "CompetitionSettings",
    "ExtractSettings",
    "FitSettings",
    "Resolved",
    "Settings",
    "TemperatureSettings",
    "parse_count",
    "resolve",
]
