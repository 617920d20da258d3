"""Asset keys, groups and owners: the grammar of names in one place (docs/naming.md)."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from personas_dagster.spaces import Space

DEFAULT_OWNER = "team:data"


class Names:
    """The asset keys of one space, each prefixed with the space's name."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def key(self, *parts: str) -> dg.AssetKey:
        return dg.AssetKey([self._space.name, *parts])

    def source(self, source_id: str) -> dg.AssetKey:
        return self.key("sources", source_id)

    def trait(self, key: str) -> dg.AssetKey:
        return self.key("computed_traits", key)

    def sql_trait(self, key: str) -> dg.AssetKey:
        return self.key("sql_traits", key)

    def audience(self, key: str) -> dg.AssetKey:
        return self.key("audiences", key)

    def destination(self, name: str) -> dg.AssetKey:
        return self.key("destinations", name)

    def connection(self, name: str) -> dg.AssetKey:
        return self.key("connections", name)

    def connected(self, key: str) -> dg.AssetKey:
        """The asset that a connection's key stands for."""
        if key in self._space.audience_keys:
            return self.audience(key)
        if key in self._space.computed_keys:
            return self.trait(key)
        return self.sql_trait(key.split(".")[0])


def owners(owner: str | None) -> list[str]:
    """Dagster takes e-mails and `team:` names."""
    if owner is None:
        return [DEFAULT_OWNER]
    return [owner if "@" in owner or owner.startswith("team:") else f"team:{owner}"]


def declared_at(root: Any, declared: Any) -> Mapping[str, Any]:
    """Metadata that leads from the UI to the definition's file and line."""
    reference = dg.LocalFileCodeReference(
        file_path=str(root / declared.path), line_number=declared.line
    )
    value = dg.CodeReferencesMetadataValue(code_references=[reference])
    return {"dagster/code_references": value}
