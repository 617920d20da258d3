"""What the example tests ask a graph: who holds what, what was dropped, whose a message is."""

from __future__ import annotations

from typing import Any

from tests.identity.graph import Graph

DAY = 86_400


def held(graph: Graph, collection: str = "users") -> list[set[str]]:
    """The identifiers of each profile, `type:value`, the oldest profile first."""
    rows = graph.rows(
        "SELECT p.created_at, list(i.type || ':' || i.value) AS ids FROM graph_profiles p "
        "JOIN graph_identifiers i USING (profile_id) "
        f"WHERE p.collection = '{collection}' "
        "GROUP BY p.profile_id, p.created_at ORDER BY p.created_at"
    )
    return [set(row["ids"]) for row in rows]


def dropped(graph: Graph) -> list[tuple[str, str]]:
    rows = graph.rows(
        "SELECT type || ':' || value AS id, limit_broken FROM dropped_identifiers "
        "ORDER BY received_at, limit_broken, type, value",
        "dropped_identifiers",
    )
    return [(row["id"], row["limit_broken"]) for row in rows]


def owner(graph: Graph, number: int) -> set[str]:
    """What the profile of a message holds now."""
    rows = graph.rows(
        "SELECT i.type || ':' || i.value AS id FROM events e "
        "JOIN graph_roots r ON r.profile_id = e.profile_id "
        f"JOIN graph_identifiers i ON i.profile_id = r.root_id WHERE message_id = 'm{number:04}'",
        "events",
    )
    return {row["id"] for row in rows}


def emails(*values: str) -> dict[str, Any]:
    return {"externalIds": [{"id": v, "type": "email", "encoding": "none"} for v in values]}
