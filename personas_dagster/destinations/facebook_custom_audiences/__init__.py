"""Facebook Custom Audiences: an audience as a customer-file audience of an ad account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.facebook_custom_audiences.client import FacebookCustomAudiences
from personas_dagster.destinations.facebook_custom_audiences.settings import FacebookSettings


def open_facebook_custom_audiences(settings: Mapping[str, Any]) -> FacebookCustomAudiences:
    """An ad account's custom audiences from their settings."""
    return FacebookCustomAudiences(FacebookSettings.model_validate(dict(settings)))
