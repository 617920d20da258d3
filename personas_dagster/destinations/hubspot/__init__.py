"""HubSpot: properties of contacts and companies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.hubspot.client import HubSpot
from personas_dagster.destinations.hubspot.settings import HubSpotSettings


def open_hubspot(settings: Mapping[str, Any]) -> HubSpot:
    """An account from its settings."""
    return HubSpot(HubSpotSettings.model_validate(dict(settings)))
