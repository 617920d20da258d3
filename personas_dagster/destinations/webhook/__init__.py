"""The generic HTTPS webhook: each message, or batch of them, as JSON to an address of yours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.webhook.client import Webhook
from personas_dagster.destinations.webhook.settings import WebhookSettings


def open_webhook(settings: Mapping[str, Any]) -> Webhook:
    """A webhook from its settings."""
    return Webhook(WebhookSettings.model_validate(dict(settings)))
