"""Braze: attributes and custom events of users, by `/users/track`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.braze.client import Braze
from personas_dagster.destinations.braze.settings import BrazeSettings


def open_braze(settings: Mapping[str, Any]) -> Braze:
    """A workspace from its settings."""
    return Braze(BrazeSettings.model_validate(dict(settings)))
