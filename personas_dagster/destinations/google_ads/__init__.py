"""Google Ads audiences: an audience as a Customer Match list, by the Data Manager API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.google_ads.client import GoogleAds
from personas_dagster.destinations.google_ads.settings import GoogleAdsSettings


def open_google_ads(settings: Mapping[str, Any]) -> GoogleAds:
    """An account's audiences from their settings."""
    return GoogleAds(GoogleAdsSettings.model_validate(dict(settings)))
