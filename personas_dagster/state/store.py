"""The state database of a space: opening it, migrating it, and errors that say what to do."""

from __future__ import annotations

import datetime as dt
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError

from personas_dagster.errors import StateUnavailable
from personas_dagster.state import schema
from personas_dagster.state.leases import Lease

HEAD = "0007"
_BUSY_SECONDS = 5.0
_MIGRATION_LOCK = 7_665_072  # PostgreSQL's advisory lock; any number, the same in each process


class State:
    """Registry, leases, loads, refreshes, syncs and the audit trail of one space.

    `url` is any SQLAlchemy URL; SQLite (in WAL mode) and PostgreSQL are tested.
    """

    def __init__(self, url: str | sa.URL) -> None:
        self.url = sa.make_url(url)
        if self.url.drivername == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
        if self.url.get_backend_name() == "sqlite" and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        self._engine = sa.create_engine(self.url, pool_pre_ping=True)
        # At the process's end too: SQLite then leaves one file of a database and not three.
        weakref.finalize(self, self._engine.dispose)
        self._watcher: sa.Connection | None = None
        if self.url.get_backend_name() == "sqlite":
            sa.event.listen(self._engine, "connect", _sqlite_settings)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    def _migrate(self) -> None:
        """Bring the tables up to date. Of processes that start together, one does it."""
        with self.read() as connection:
            if _revision(connection) == HEAD:
                return
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.begin() as connection:
            if self._engine.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise StateUnavailable(
                    f"state database {self._shown}: revision {_revision(connection)} is not "
                    f"known here (the last is {HEAD}); a newer version of personas wrote it: "
                    "install that one"
                ) from error

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction that writes: committed at the end, rolled back on any error."""
        with self._translated(), self._engine.begin() as connection:
            if self._engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection for reading."""
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if not _is_unavailable(error):
                raise
            reason = str(error.orig).strip().splitlines()[0] if error.orig else "no answer"
            raise StateUnavailable(
                f"state database {self._shown}: {reason}; end the process that holds it, or check "
                "that the server is up, and run the command again"
            ) from error

    @property
    def _shown(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        """All rows of a query, as dicts."""
        with self.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def lease(self, name: str, *, owner: str, holder: str) -> Lease:
        """A lease on `name`; use it as a context manager, or `acquire` and `release` it."""
        return Lease(self, name, owner=owner, holder=holder)

    def audit(
        self,
        what: str,
        subject: str,
        *,
        at: dt.datetime,
        outcome: str,
        attempt: int = 1,
        reason: str | None = None,
        counts: Mapping[str, Any] | None = None,
        within: sa.Connection | None = None,
    ) -> None:
        """Add a line to the audit trail; in the transaction of what it tells of, where given."""
        with nullcontext(within) if within else self.begin() as connection:
            connection.execute(
                sa.insert(schema.audit).values(
                    at=at,
                    what=what,
                    subject=subject,
                    attempt=attempt,
                    outcome=outcome,
                    reason=reason,
                    counts=dict(counts or {}),
                )
            )

    def mark(self) -> int | None:
        """A number that is another one once anybody has written; None where it is not known.

        To be asked by one thread. What was read under the same number holds still.
        """
        if self._engine.dialect.name != "sqlite":
            return None
        with self._translated():
            if self._watcher is None:
                self._watcher = self._engine.connect()
            found: int = self._watcher.exec_driver_sql("PRAGMA data_version").scalar_one()
            return found

    def forget(self) -> None:
        """Give freed pages back, so that what was deleted is not left in the file either."""
        if self._engine.dialect.name == "sqlite":
            statements = ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"]
        else:
            statements = ["VACUUM"]
        with self._translated(), self._engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            for statement in statements:
                connection.exec_driver_sql(statement)

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        self._engine.dispose()


def _is_unavailable(error: DBAPIError) -> bool:
    """Whether the database did not do its part, and not the statement its own."""
    if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
        return True
    return type(error) is DatabaseError  # such as SQLite's «file is not a database»


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sa.text("select version_num from alembic_version")).scalar()
    return None if found is None else str(found)


def _sqlite_settings(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # `begin` opens transactions itself
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(_BUSY_SECONDS * 1000)}")  # first: the next may wait
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
