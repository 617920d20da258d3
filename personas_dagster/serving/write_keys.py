"""Which source of which space a write key belongs to. Keys are kept as hashes only."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from personas_dagster.errors import PersonasError
from personas_dagster.spaces import Space


@dataclass(frozen=True)
class Intake:
    """Where the messages of one write key go."""

    space: str
    source: str
    name: str  # as people call the source
    incoming: Path  # the folder of the source in the space's landing folder


class WriteKeys:
    """The write keys of the served spaces, by the start of their hash."""

    def __init__(self, intakes: Iterable[tuple[str, Intake]] = ()) -> None:
        self._found: dict[bytes, tuple[bytes, Intake]] = {}
        for key, intake in intakes:
            hashed = _hashed(key)
            other = self._found.get(hashed[:8])
            if other:
                raise PersonasError(
                    f"the write key of source {intake.source} in space {intake.space} is also that "
                    f"of {other[1].source} in {other[1].space}; give each a key of its own"
                )
            self._found[hashed[:8]] = (hashed, intake)

    def find(self, key: str | None) -> Intake | None:
        """The intake of a key. How long it takes says nothing about the keys that there are."""
        hashed = _hashed(key or "")
        known, intake = self._found.get(hashed[:8], (b"", None))
        return intake if hmac.compare_digest(known, hashed) else None

    @property
    def intakes(self) -> list[Intake]:
        return [intake for _, intake in self._found.values()]


def read(
    spaces: Mapping[str, Space], *, allow_missing: bool = False
) -> tuple[WriteKeys, list[str]]:
    """The write keys of these spaces, and what is missing (else, a PersonasError names it all)."""
    found, missing = list[tuple[str, Intake]](), list[str]()
    for name, space in spaces.items():
        for source_id, source in space.sources.items():
            secret = source.write_keys.get(name)
            if secret is None:
                continue
            try:
                key = secret.read().get_secret_value()
            except PersonasError as error:
                missing.append(f"write key of source {source_id} in space {name}: {error}")
                continue
            folder = space.landing_folder / "incoming" / source_id
            found.append((key, Intake(name, source_id, source.name, folder)))
    if missing and not allow_missing:
        raise PersonasError("; ".join(missing))
    return WriteKeys(found), missing


def _hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()
