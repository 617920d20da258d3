"""`personas sync`: its options, what it prints, how it ends; and what is due after it."""

import datetime as dt
import json
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from personas_dagster import refresh
from personas_dagster.samples.receiver import Receiver
from personas_dagster.simulators import simulator
from personas_dagster.simulators.serving import Served
from personas_dagster.state.schema import audit, landing_files, refreshes
from personas_dagster.timing import due, overdue_sources
from tests.cli.running import Personas
from tests.place import NOW, Place

ORDER = {"type": "track", "event": "Order", "receivedAt": "2026-01-01T00:00:00Z"}
LATER = NOW + dt.timedelta(days=30_000)


def orders(*users: int) -> list[dict[str, object]]:
    return [
        {**ORDER, "messageId": f"m{n}", "userId": f"u{n}",
         "context": {"traits": {"email": f"{n}@example.com"}}}
        for n in users
    ]  # fmt: skip


@pytest.fixture
def tool(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A webhook and a list at a simulator, told of buyers; three are known."""
    account = simulator("iterable_lists")
    monkeypatch.setenv("LISTS_KEY", account.key)
    with Receiver() as receiver, Served() as served:
        for name, kind, settings in (
            ("hook", "webhook", {"url": receiver.url}),
            (
                "lists",
                "iterable_lists",
                {
                    **account.settings(served.add("lists", account)),
                    "api_key": {"env": "LISTS_KEY"},
                },
            ),
        ):
            text = json.dumps({"type": kind, "settings": settings})
            place.write(f"resources/destinations/{name}.yaml", text)
            connection = f"audience: buyers\ndestination: {name}\n"
            place.write(f"sensors/connections/to_{name}.yaml", connection)
        place.define({"audiences/buyers": "event('Order').count() >= 1"})
        place.refresh(*orders(1, 2, 3))
        yield receiver


def test_force_and_the_interval(personas: Personas, place: Place, tool: Receiver) -> None:
    assert personas("sync").code == 0
    place.refresh(*orders(4))
    early = personas("sync", "to_lists")
    assert early.code == 0
    assert "takes a sync every 1:00:00" in early.rows[0]["skipped"]
    assert "or now with --force" in early.err
    forced = personas("sync", "to_lists", "--force")
    assert forced.rows[0]["reasons"] == {"entered": 1}


def test_resync(personas: Personas, tool: Receiver) -> None:
    personas("sync", "to_hook")
    assert personas("sync", "to_hook").rows[0]["requests"] == 0
    dry = personas("sync", "to_hook", "--resync", "buyers", "--dry-run")
    assert (dry.rows[0]["messages"], dry.rows[0]["confirmed"]) == (6, 0)
    again = personas("sync", "to_hook", "--resync", "buyers")
    assert again.rows[0]["reasons"] == {"resync": 3}
    assert personas("sync", "to_hook").rows[0]["requests"] == 0


def test_resync_of_one_destination_of_several(personas: Personas, tool: Receiver) -> None:
    personas("sync")
    ended = personas("sync", "--resync", "to_hook", "--force")
    assert [row["reasons"] for row in ended.rows] == [{"resync": 3}, {}]


@pytest.mark.parametrize("option", [("--resync",), ("--reason", "why", "--allow")])
def test_of_what_is_not_synced(personas: Personas, tool: Receiver, option: tuple[str]) -> None:
    ended = personas("sync", "to_hook", *option, "moon")
    assert ended.code == 1 and len(ended.lines) == 1
    assert f"{option[-1]} moon: found no such connection or key" in ended.err
    assert "expected one of: buyers, to_hook" in ended.err


def test_an_overdue_source_holds_and_alerts(
    personas: Personas, place: Place, tool: Receiver
) -> None:
    place.write("assets/sources/files.yaml", "name: Files\nkind: file\nexpect_every: 1 day\n")
    assert personas("sync", "to_hook").rows[0]["reasons"] == {"backfill": 3}  # held is no first one
    place.refresh(*orders(4))
    with place.space.state.begin() as connection:
        connection.execute(sa.update(landing_files).values(landed_at=NOW - dt.timedelta(days=900)))
    with Receiver() as channel:
        place.write("sensors/alerts.yaml", f"urls: ['{channel.url.replace('http', 'json')}']")
        held = personas("sync", "to_hook")
        (told,) = channel.messages
    assert held.rows[0]["held"] == 1 and held.rows[0]["requests"] == 0
    assert "files has sent nothing since 2023-" in told["message"]
    assert "expected every 1 day" in told["message"]
    allowed = personas("sync", "to_hook", "--allow", "to_hook", "--reason", "known, ticket 7")
    assert allowed.rows[0]["reasons"] == {"entered": 1}
    (row,) = place.space.state.rows(sa.select(audit).where(audit.c.what == "allow"))
    who, why = row["reason"].split(": ", 1)
    assert who and why.startswith("known, ticket 7 (held because it has a source")


def test_sources_that_are_on_time_or_say_nothing(place: Place, tool: Receiver) -> None:
    assert overdue_sources(place.space, now=LATER) == {}
    place.write("assets/sources/files.yaml", "name: Files\nkind: file\nexpect_every: 1 day\n")
    place.write("assets/sources/new.yaml", "name: New\nkind: file\nexpect_every: 1 hour\n")
    assert set(overdue_sources(place.space, now=NOW + dt.timedelta(days=1))) == {"new"}
    assert set(overdue_sources(place.space, now=LATER)) == {"files", "new"}


def test_failure_ends_with_one_line(personas: Personas, tool: Receiver) -> None:
    tool.fail_next(100, status=403)
    ended = personas("sync", "to_hook")
    assert ended.code == 1 and len(ended.lines) == 1
    assert "destination hook: HTTP 403" in ended.err


def test_connections_are_due_by_themselves(
    personas: Personas, place: Place, tool: Receiver
) -> None:
    place.write("sensors/connections/second.yaml", "audience: buyers\ndestination: hook\n")
    personas("sync", "to_hook")
    personas("sync", "to_lists")
    assert set(due(place.space, now=LATER)) == {"hook"}  # the second was never told
    personas("sync", "second")
    assert due(place.space, now=LATER) == {}
    assert personas("ingest", place.messages(*orders(4))).code == 0
    assert personas("refresh", "--as-of", "2026-03-02").code == 0
    assert set(due(place.space, now=LATER)) == {"hook", "lists"}
    personas("sync", "second")
    assert set(due(place.space, now=LATER)) == {"hook", "lists"}
    personas("sync", "--force")
    assert due(place.space, now=LATER) == {}


def test_identifiers_of_a_refresh_that_died_are_due(
    personas: Personas, place: Place, tool: Receiver
) -> None:
    """Killed between the graph and the publication; the next refresh resolves nothing itself."""
    personas("sync")
    identify = {"type": "identify", "userId": "u1", "traits": {"email": "new@example.com"},
                "messageId": "i1", "receivedAt": "2026-01-02T00:00:00Z"}  # fmt: skip
    space = place.space
    refresh.begin(space, run_id="dead", now=NOW, as_of=NOW)
    place.take(place.messages(identify), space=space)
    assert due(space, now=LATER) == {}
    place.refresh()
    assert set(due(place.space, now=LATER)) == {"hook", "lists"}
    assert personas("sync", "to_hook").rows[0]["reasons"] == {"new_identifier": 1}
    rows = space.state.rows(sa.select(refreshes).order_by(refreshes.c.refresh_id))
    assert [row["status"] for row in rows] == ["finished", "discarded", "finished"]
    trail = space.state.rows(sa.select(audit).where(audit.c.outcome == "discarded"))
    assert [row["reason"] for row in trail] == ["run dead did not finish"]
