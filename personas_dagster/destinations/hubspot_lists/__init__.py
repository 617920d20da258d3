"""HubSpot lists: an audience as a manual list of contacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.hubspot_lists.client import HubSpotLists
from personas_dagster.destinations.hubspot_lists.settings import HubSpotListsSettings


def open_hubspot_lists(settings: Mapping[str, Any]) -> HubSpotLists:
    """An account's lists from their settings."""
    return HubSpotLists(HubSpotListsSettings.model_validate(dict(settings)))
