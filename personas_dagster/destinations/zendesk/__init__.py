"""Zendesk: fields of users and organizations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.zendesk.client import Zendesk
from personas_dagster.destinations.zendesk.settings import ZendeskSettings


def open_zendesk(settings: Mapping[str, Any]) -> Zendesk:
    """An account from its settings."""
    return Zendesk(ZendeskSettings.model_validate(dict(settings)))
