"""Settings of a space's intake, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE


@dataclass(frozen=True)
class EventSettings:
    """How messages are taken in.

    A load keeps the settings it was started with: resuming it and materialising its partitions
    again use those. `chunk_bytes` is how much text is decoded at a time and changes no result.
    """

    dedupe_days: int = 7
    max_properties: int = 300
    max_line_bytes: int = MEBIBYTE
    oversize_bytes: int = 32 * KIBIBYTE
    chunk_bytes: int = 32 * MEBIBYTE

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}; give at least 1")

    def recorded(self) -> dict[str, int]:
        """What decides results, to be kept with a load."""
        return {name: value for name, value in asdict(self).items() if name != "chunk_bytes"}

    def as_recorded(self, counts: Mapping[str, Any] | None) -> EventSettings:
        """The settings that a load was started with, on top of these."""
        kept = {**asdict(self), **dict((counts or {}).get("settings", {}))}
        return EventSettings(**{name: kept[name] for name in asdict(self)})
