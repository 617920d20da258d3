"""A lake seen with some tables taken from elsewhere: what would be, and what is only simulated."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from personas_dagster.errors import LakeUnavailable
from personas_dagster.interfaces import Data, Days, Indexed, Lake, Part


class Overlay:
    """`over` stands in for `names`, and takes what is written; all other tables are `base`'s."""

    def __init__(self, base: Lake, over: Lake, names: Collection[str]) -> None:
        self._base, self._over, self._names = base, over, frozenset(names)

    def _writable(self, name: str) -> Lake:
        if name not in self._names:
            raise LakeUnavailable(f"{name} cannot be written here: it is only looked at")
        return self._over

    def append(self, name: str, data: Data, *, once: tuple[str, int] | None = None) -> int:
        return self._writable(name).append(name, data, once=once)

    def replace(
        self,
        name: str,
        data: Data,
        *,
        where: str | None = None,
        once: tuple[str, int] | None = None,
    ) -> int:
        return self._writable(name).replace(name, data, where=where, once=once)

    def adopt(self, name: str, source: str, *, once: tuple[str, int] | None = None) -> int:
        self._writable(source)
        return self._writable(name).adopt(name, source, once=once)

    def forget(self, name: str) -> None:
        self._writable(name).forget(name)

    def files(
        self, name: str, *, after_load: int | None = None, days: Days | None = None
    ) -> list[str]:
        lake = self._over if name in self._names else self._base
        return lake.files(name, after_load=after_load, days=days)

    def parts(self, name: str) -> list[Part]:
        return (self._over if name in self._names else self._base).parts(name)

    def compact(self, name: str, *, above: int) -> int:
        return self._writable(name).compact(name, above=above)

    def sweep(self, *, hours: int) -> int:
        return self._over.sweep(hours=hours)

    def index(self, name: str) -> None:
        self._writable(name).index(name)

    def indexed(self, name: str) -> Indexed:
        return (self._over if name in self._names else self._base).indexed(name)

    def derived(self, name: str) -> list[str]:
        return (self._over if name in self._names else self._base).derived(name)

    def versions(self) -> dict[str, int]:
        kept = {k: v for k, v in self._base.versions().items() if k not in self._names}
        return kept | {k: v for k, v in self._over.versions().items() if k in self._names}

    def at(self, versions: Mapping[str, int], *, live: Collection[str] = ()) -> Lake:
        return Overlay(self._base.at(versions), self._over, self._names)
