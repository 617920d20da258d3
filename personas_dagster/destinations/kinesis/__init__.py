"""Amazon Kinesis Data Streams: each message as a record of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.kinesis.client import Kinesis
from personas_dagster.destinations.kinesis.settings import KinesisSettings


def open_kinesis(settings: Mapping[str, Any]) -> Kinesis:
    """A stream from its settings. Nothing of AWS is imported before it is used."""
    return Kinesis(KinesisSettings.model_validate(dict(settings)))
