"""Iterable lists: an audience as a static list, by subscribing and unsubscribing its people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.iterable_lists.client import IterableLists
from personas_dagster.destinations.iterable_lists.settings import IterableListsSettings


def open_iterable_lists(settings: Mapping[str, Any]) -> IterableLists:
    """A project's lists from their settings."""
    return IterableLists(IterableListsSettings.model_validate(dict(settings)))
