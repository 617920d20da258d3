"""What people do with a destination besides syncing: look at it, test it, import its settings.

What belongs here: the questions. What does not: printing (`cli/`), and any tool's name.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from ruamel.yaml import YAML

from personas_dagster import deliver
from personas_dagster.activation.connection import Connection
from personas_dagster.activation.destination import Destination, Message
from personas_dagster.activation.messages import Change as Row
from personas_dagster.activation.messages import Writer
from personas_dagster.activation.sync import interval_of
from personas_dagster.errors import DeliveryError, PersonasError
from personas_dagster.spaces import Space, abilities_of, open_space
from personas_dagster.timing import last_sync, next_sync

TEST_KEY = "personas_test"


def listed(space: Space) -> list[dict[str, Any]]:
    """The destinations of a space, by name; no secret is read."""
    found = []
    for name, model in sorted(space.destinations.items()):
        abilities = abilities_of(model)
        interval = interval_of(abilities, model.every)
        found.append(
            {
                "destination": name,
                "type": model.type,
                "kind": abilities.kind,
                "takes": list(abilities.accepts),
                "connections": sorted(
                    one.name for one in space.connections.values() if one.destination == name
                ),
                "requests_per_second": abilities.requests_per_second,
                "interval_seconds": interval.total_seconds() if interval else None,
                "last_sync": last_sync(space, name),
                "next_sync": next_sync(space, name),
            }
        )
    return found


@dataclass
class Tried:
    """What a test found. `said` is for people, `problems` are why the destination does not work."""

    row: dict[str, Any]
    said: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def tried(space: Space, name: str, *, to: str | None = None, key: str = TEST_KEY) -> Tried:
    """Open a destination with its secrets, ask the tool what each connection needs, and send one
    message to a person where one is given. The ledger learns nothing of it.

    Raises `Busy` while a sync of the destination runs: the cap on requests is one for both.
    """
    destination = deliver.opened(space, name)
    batch = _test_batch(space, name, destination, to, key) if to else []
    connections = deliver.connections(space, name)
    found = Tried({"type": space.destinations[name].type})
    lease = space.sync_state.lease(
        f"destination:{name}", owner=uuid4().hex, holder=f"a test of {name}"
    )
    with lease:
        asyncio.run(_try(destination, connections, batch, found))
    found.row |= {"works": not found.problems, "sent": len(batch)}
    if not to:
        found.said.append("nothing was sent; --to TYPE:VALUE sends a test message to one person")
    for request in destination.preview(batch) if batch else ():
        found.said.append(f"{request.method} {request.url} {request.body}")
    return found


async def _try(
    destination: Destination,
    connections: Sequence[Connection],
    batch: Sequence[Message],
    found: Tried,
) -> None:
    rate = destination.abilities.requests_per_second

    async def pace() -> None:
        await asyncio.sleep(1 / rate if rate else 0)

    async with destination:
        for one in connections:
            try:
                await destination.check(one, pace)
            except DeliveryError as error:
                found.problems.append(f"connection {one.name}: {error}")
        try:
            outcomes = await destination.send(batch, pace) if batch else []
        except DeliveryError as error:
            found.problems.append(str(error))
        else:
            found.problems += [str(one.error) for one in outcomes if one.error]


def _test_batch(
    space: Space, name: str, destination: Destination, to: str, key: str
) -> list[Message]:
    kind, _, value = to.partition(":")
    abilities = destination.abilities
    known = [*abilities.matches_on, *(["anonymous_id"] if abilities.takes_anonymous else [])]
    if not value or kind not in known:
        raise PersonasError(
            f"found --to {to}, expected TYPE:VALUE, where TYPE is one that {name} knows people "
            f"by: {', '.join(known)}"
        )
    connection = Connection("test", name, key, "audience", forms=("identify",))
    now = dt.datetime.now(dt.UTC)
    writer = Writer(connection, abilities, space_id=space.name, timestamp=now)
    recipient = json.dumps({kind: value})
    return writer.write(Row("test", "test", "users", recipient, "true", "test", uuid4().hex))


@dataclass(frozen=True)
class Change:
    """A file that is to be written."""

    path: Path
    before: str
    after: str


def imported(space: Space, name: str, *, source: str, new: str | None = None) -> list[Change]:
    """What makes a destination of another space one of this: changes of files, nothing written.

    Without `new` the same account serves both spaces. With `new` its settings are copied to a
    destination of this space alone. Secrets are references to the environment or to files, and
    stay what they are.
    """
    project = space.project
    other = open_space(project, source)
    if other.name == space.name:
        raise PersonasError(
            f"--from {source} is the space itself; name the other with --from, and this with "
            "--space"
        )
    if name not in other.destinations:
        there = ", ".join(sorted(other.destinations)) or "none"
        raise PersonasError(f"space {source} has no destination `{name}`; it has {there}")
    declared = project.destinations[name]
    path = project.root / declared.path
    text = path.read_text(encoding="utf-8")
    yaml, document = _parsed(text)
    if new is None:
        if name in space.destinations:
            raise PersonasError(f"space {space.name} has destination {name} already")
        changes = []
        if declared.model.spaces is not None and space.name not in declared.model.spaces:
            document["spaces"].append(space.name)
            changes.append(Change(path, text, _written(yaml, document)))
        return [*changes, *_chosen(space, name)]
    if new in project.destinations:
        raise PersonasError(f"there is a destination `{new}` already; choose another name")
    target = project.root / "resources" / "destinations" / f"{new}.yaml"
    document.pop("name", None)
    if document.get("spaces"):
        document["spaces"][:] = [space.name]  # keeps the layout
    else:
        document["spaces"] = [space.name]
    return [Change(target, "", _written(yaml, document)), *_chosen(space, new)]


def _chosen(space: Space, name: str) -> list[Change]:
    """The change of a space's file, where the space lists its destinations."""
    if space.settings.destinations is None or name in space.settings.destinations:
        return []
    path = space.project.root / space.project.spaces[space.name].path
    text = path.read_text(encoding="utf-8")
    yaml, document = _parsed(text)
    document["destinations"].append(name)
    return [Change(path, text, _written(yaml, document))]


def _parsed(text: str) -> tuple[YAML, Any]:
    """A document with its comments and its layout."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    return yaml, yaml.load(text)


def _written(yaml: YAML, document: Any) -> str:
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()
