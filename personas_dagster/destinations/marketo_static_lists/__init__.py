"""Marketo static lists: an audience as a static list of leads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.marketo_static_lists.client import MarketoStaticLists
from personas_dagster.destinations.marketo_static_lists.settings import MarketoStaticListsSettings


def open_marketo_static_lists(settings: Mapping[str, Any]) -> MarketoStaticLists:
    """An instance's static lists from their settings."""
    return MarketoStaticLists(MarketoStaticListsSettings.model_validate(dict(settings)))
