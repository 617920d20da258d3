"""Messages: landing files, checking what is in them, and loading each message once."""

from personas_dagster.events.landing import LandedFile, Landing
from personas_dagster.events.loading import LoadReport, load
from personas_dagster.events.reasons import REASONS
from personas_dagster.events.rebuilding import RebuildReport, rebuild
from personas_dagster.events.settings import EventSettings

__all__ = [
    "REASONS",
    "EventSettings",
    "LandedFile",
    "Landing",
    "LoadReport",
    "RebuildReport",
    "load",
    "rebuild",
]
