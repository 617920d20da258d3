"""Amplitude: user properties, events and group properties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.amplitude.client import Amplitude
from personas_dagster.destinations.amplitude.settings import AmplitudeSettings


def open_amplitude(settings: Mapping[str, Any]) -> Amplitude:
    """A project from its settings."""
    return Amplitude(AmplitudeSettings.model_validate(dict(settings)))
