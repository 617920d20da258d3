"""Intercom: attributes of contacts and companies, and events of contacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.intercom.client import Intercom
from personas_dagster.destinations.intercom.settings import IntercomSettings


def open_intercom(settings: Mapping[str, Any]) -> Intercom:
    """A workspace from its settings."""
    return Intercom(IntercomSettings.model_validate(dict(settings)))
