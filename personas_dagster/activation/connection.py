"""A connection: one trait or audience joined to one destination, with its settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from personas_dagster.activation.destination import Abilities, Form

Kind = Literal["audience", "computed_trait", "sql_trait"]


@dataclass(frozen=True)
class EventNames:
    """What the `track` messages are called."""

    entered: str = "Audience Entered"
    exited: str = "Audience Exited"
    computed: str = "Trait Computed"


@dataclass(frozen=True)
class Connection:
    """`name` identifies it for good; the ledger remembers what was sent under it.

    `forms`: empty stands for the default, `identify` and `track` for users and `group` for
    accounts, as far as the destination takes them. `enrich` names traits that go along.
    `backfill=False` sends nothing for values that existed when the connection was made.
    `max_change` is the share of an audience that one sync may change before it is held.
    `list_id` is that of a list that is there, for a list destination.
    """

    name: str
    destination: str
    key: str
    kind: Kind
    collection: Literal["users", "accounts"] = "users"
    forms: tuple[Form, ...] = ()
    email: Literal["all", "first", "last"] = "all"
    enrich: tuple[str, ...] = ()
    backfill: bool = True
    resend_new_identifiers: bool = True
    events: EventNames = field(default_factory=EventNames)
    alias: bool = False
    max_change: float = 0.5
    list_id: str | None = None

    @property
    def exit_value(self) -> str:
        """The JSON that tells a tool that the value is gone."""
        return "false" if self.kind == "audience" else "null"


def forms_of(connection: Connection, abilities: Abilities) -> tuple[Form, ...]:
    """The forms that a connection is sent in, in the order in which they are sent."""
    if abilities.kind == "list":
        return ("add", "remove")
    default: tuple[Form, ...] = (
        ("identify", "track") if connection.collection == "users" else ("group",)
    )
    wanted = connection.forms or default
    order: tuple[Form, ...] = ("group", "identify", "track")
    return tuple(form for form in order if form in wanted and form in abilities.forms)


def problems(connection: Connection, abilities: Abilities) -> list[str]:
    """Why this destination cannot take this connection; empty when it can."""
    found = []
    if connection.list_id is not None and abilities.kind != "list":
        found.append(
            f"connection {connection.name}: destination {connection.destination} keeps no lists; "
            "remove `list_id`"
        )
    accepted = "audience" if connection.kind == "audience" else "trait"
    if accepted not in abilities.accepts or (abilities.kind == "list" and accepted == "trait"):
        takes = "audiences" if "audience" in abilities.accepts else "traits"
        found.append(
            f"connection {connection.name}: destination {connection.destination} takes {takes} "
            f"only, and {connection.key} is a {connection.kind}; connect it elsewhere"
        )
    refused = [
        form
        for form in connection.forms
        if form not in abilities.forms or (form == "group" and connection.collection == "users")
    ]
    if abilities.kind == "event" and (refused or not forms_of(connection, abilities)):
        wanted = ", ".join(refused or connection.forms) or "any form"
        found.append(
            f"connection {connection.name}: {connection.destination} cannot take {wanted} of "
            f"{connection.collection}; it takes {', '.join(abilities.forms)} (group: accounts only)"
        )
    if connection.alias and not abilities.knows_alias:
        found.append(
            f"connection {connection.name}: {connection.destination} does not know alias; "
            "remove `alias: true`"
        )
    return found
