"""SendGrid: custom fields of marketing contacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.sendgrid.client import SendGrid
from personas_dagster.destinations.sendgrid.settings import SendGridSettings


def open_sendgrid(settings: Mapping[str, Any]) -> SendGrid:
    """An account from its settings."""
    return SendGrid(SendGridSettings.model_validate(dict(settings)))
