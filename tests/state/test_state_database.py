"""The state database, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from personas_dagster import state as package
from personas_dagster.errors import StateUnavailable
from personas_dagster.state import State, schema
from personas_dagster.state.store import HEAD

NOW = dt.datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=dt.UTC)
MIGRATIONS = Path(package.__file__).parent / "migrations"


def test_migrations_make_the_schema(state: State) -> None:
    with state.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
        assert context.get_current_revision() == HEAD


def test_head_is_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_down_and_up_again(state: State) -> None:
    from alembic import command

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    for step, argument in ((command.downgrade, "base"), (command.upgrade, "head")):
        with state.begin() as connection:
            config.attributes["connection"] = connection
            step(config, argument)
    state.audit("refresh", "main", at=NOW, outcome="finished")


def test_opened_by_many_at_once(open_state: Callable[[], State]) -> None:
    """Of processes that start together, one makes the tables."""
    failed: list[BaseException] = []

    def open_it() -> None:
        try:
            open_state()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_audit(state: State) -> None:
    state.audit("sync", "webhook", at=NOW, outcome="failed", attempt=2, reason="down")
    state.audit("refresh", "main", at=NOW, outcome="finished", counts={"as_of": "2026", "ä": [1]})
    rows = state.rows(sa.select(schema.audit).order_by(schema.audit.c.audit_id))
    assert [(r["what"], r["subject"], r["attempt"], r["outcome"], r["reason"]) for r in rows] == [
        ("sync", "webhook", 2, "failed", "down"),
        ("refresh", "main", 1, "finished", None),
    ]
    assert [row["counts"] for row in rows] == [{}, {"as_of": "2026", "ä": [1]}]


def test_instants_keep_microseconds_and_zone(state: State) -> None:
    at = NOW.astimezone(dt.timezone(dt.timedelta(hours=5)))
    state.audit("refresh", "main", at=at, outcome="finished")
    (row,) = state.rows(sa.select(schema.audit))
    assert row["at"] == NOW and row["at"].utcoffset() == dt.timedelta(0)


def test_rolled_back_on_error(state: State) -> None:
    row = sa.insert(schema.loads).values(status="loading", started_at=NOW, counts={})
    with pytest.raises(ZeroDivisionError), state.begin() as connection:
        connection.execute(row)
        raise ZeroDivisionError
    assert state.rows(sa.select(schema.loads)) == []


def test_ids_go_up(state: State) -> None:
    row = sa.insert(schema.loads).values(status="loading", started_at=NOW, counts={})
    with state.begin() as connection:
        first, second = (
            connection.execute(row).inserted_primary_key[0]  # type: ignore[index]
            for _ in range(2)
        )
    assert second > first


def test_writers_wait_for_each_other(open_state: Callable[[], State]) -> None:
    """Two writers of one row: none is lost."""
    state = open_state()
    row = sa.insert(schema.connections).values(
        name="c", created_at=NOW, first_refresh_id=0, synced_refresh_id=0
    )
    with state.begin() as connection:
        connection.execute(row)
    table = schema.connections

    def count(state: State) -> None:
        for _ in range(20):
            with state.begin() as connection:
                connection.execute(
                    sa.update(table).values(synced_refresh_id=table.c.synced_refresh_id + 1)
                )

    threads = [threading.Thread(target=count, args=(open_state(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.rows(sa.select(table))[0]["synced_refresh_id"] == 60


def test_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("personas_dagster.state.store._BUSY_SECONDS", 0.05)
    state = State(f"sqlite:///{tmp_path}/state.db")
    holder = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StateUnavailable, match="database is locked; end the process that holds"):
        state.audit("refresh", "main", at=NOW, outcome="finished")
    holder.execute("ROLLBACK")
    holder.close()
    state.audit("refresh", "main", at=NOW, outcome="finished")
    state.close()


def test_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("this is not a database, and it is long enough to tell")
    with pytest.raises(StateUnavailable, match="file is not a database"):
        State(f"sqlite:///{tmp_path}/state.db")


def test_unknown_revision(state: State, state_url: str) -> None:
    """A database of a newer version is not touched."""
    with state.begin() as connection:
        connection.execute(sa.text("update alembic_version set version_num = '9999'"))
    with pytest.raises(StateUnavailable, match="revision 9999.*newer"):
        State(state_url)


@pytest.mark.postgres
def test_server_is_away(postgres_url: str) -> None:
    url = sa.make_url(postgres_url).set(port=1, password="hidden")
    with pytest.raises(StateUnavailable, match="check that the server is up") as caught:
        State(url)
    assert "hidden" not in str(caught.value)
