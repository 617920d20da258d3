"""Mixpanel: profiles, events, groups, and the alias of merged people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.mixpanel.client import Mixpanel
from personas_dagster.destinations.mixpanel.settings import MixpanelSettings


def open_mixpanel(settings: Mapping[str, Any]) -> Mixpanel:
    """A project from its settings."""
    return Mixpanel(MixpanelSettings.model_validate(dict(settings)))
