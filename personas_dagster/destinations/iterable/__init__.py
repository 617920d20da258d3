"""Iterable: user fields and custom events, by the bulk endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.iterable.client import Iterable
from personas_dagster.destinations.iterable.settings import IterableSettings


def open_iterable(settings: Mapping[str, Any]) -> Iterable:
    """A project from its settings."""
    return Iterable(IterableSettings.model_validate(dict(settings)))
