"""Marketo: fields of leads, and of companies for accounts; events as custom activities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.marketo.client import Marketo
from personas_dagster.destinations.marketo.settings import MarketoSettings


def open_marketo(settings: Mapping[str, Any]) -> Marketo:
    """An instance from its settings."""
    return Marketo(MarketoSettings.model_validate(dict(settings)))
