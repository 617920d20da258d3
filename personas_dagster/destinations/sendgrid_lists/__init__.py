"""SendGrid lists: an audience as a list of marketing contacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.sendgrid_lists.client import SendGridLists
from personas_dagster.destinations.sendgrid_lists.settings import SendGridListsSettings


def open_sendgrid_lists(settings: Mapping[str, Any]) -> SendGridLists:
    """An account's lists from their settings."""
    return SendGridLists(SendGridListsSettings.model_validate(dict(settings)))
