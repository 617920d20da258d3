"""Customer.io: people, events and objects, by the Track API's batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personas_dagster.destinations.customerio.client import CustomerIo
from personas_dagster.destinations.customerio.settings import CustomerIoSettings


def open_customerio(settings: Mapping[str, Any]) -> CustomerIo:
    """A workspace from its settings."""
    return CustomerIo(CustomerIoSettings.model_validate(dict(settings)))
