"""Mailchimp: merge fields and tags of the members of one audience."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.mailchimp.client import Mailchimp
from personas_dagster.destinations.mailchimp.settings import MailchimpSettings


def open_mailchimp(settings: Mapping[str, Any]) -> Mailchimp:
    """An audience at Mailchimp from its settings."""
    return Mailchimp(MailchimpSettings.model_validate(dict(settings)))
