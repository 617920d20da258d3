"""Leases: one holder at a time, over threads, processes and machines.

A lease is a row. Its holder renews it while it works; a holder that died is noticed at once on
the same machine (its process is gone), and elsewhere when the lease runs out.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import psutil
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from personas_dagster.errors import Busy, StateUnavailable
from personas_dagster.state import schema

if TYPE_CHECKING:
    from personas_dagster.state.store import State

_TTL = dt.timedelta(seconds=60)
_RENEW_SECONDS = 15.0


class Lease:
    """A lease on one name. The same owner may acquire it again (it is re-entrant by `owner`)."""

    def __init__(self, state: State, name: str, *, owner: str, holder: str) -> None:
        self._state, self.name, self.owner, self.holder = state, name, owner, holder
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> Lease:
        """Take the lease, or raise `Busy` with the name of who holds it."""
        now = dt.datetime.now(dt.UTC)
        table = schema.leases
        row = {
            "owner": self.owner,
            "holder": self.holder,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": psutil.Process().create_time(),
            "acquired_at": now,
            "expires_at": now + _TTL,
        }
        try:
            with self._state.begin() as connection:
                query = sa.select(table).where(table.c.name == self.name).with_for_update()
                held = connection.execute(query).mappings().one_or_none()
                if held is None:
                    connection.execute(sa.insert(table).values(name=self.name, **row))
                elif held["owner"] == self.owner or _is_free(dict(held), now):
                    connection.execute(
                        sa.update(table).where(table.c.name == self.name).values(**row)
                    )
                else:
                    raise Busy(_busy(self.name, dict(held)))
        except IntegrityError as error:
            raise Busy(f"{self.name} was taken by another process just now; try again") from error
        self._thread = threading.Thread(target=self._renew, daemon=True, name=f"lease {self.name}")
        self._thread.start()
        return self

    def release(self) -> None:
        """Give the lease back. Safe to call twice, and by one who no longer holds it."""
        self._stop.set()
        table = schema.leases
        with self._state.begin() as connection:
            connection.execute(
                sa.delete(table).where(table.c.name == self.name, table.c.owner == self.owner)
            )

    def _renew(self) -> None:
        table = schema.leases
        while not self._stop.wait(_RENEW_SECONDS):
            try:
                with self._state.begin() as connection:
                    connection.execute(
                        sa.update(table)
                        .where(table.c.name == self.name, table.c.owner == self.owner)
                        .values(expires_at=dt.datetime.now(dt.UTC) + _TTL)
                    )
            except StateUnavailable:
                continue  # the next round tries again, well before the lease runs out

    def __enter__(self) -> Lease:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def _is_free(held: dict[str, Any], now: dt.datetime) -> bool:
    if held["expires_at"] <= now:
        return True
    if held["host"] != socket.gethostname():
        return False
    try:
        return bool(abs(psutil.Process(held["pid"]).create_time() - held["process_started"]) > 1.0)
    except psutil.NoSuchProcess:
        return True


def _busy(name: str, held: dict[str, Any]) -> str:
    since = held["acquired_at"].strftime("%Y-%m-%d %H:%M:%S UTC")
    return (
        f"{name} is held by {held['holder']} (process {held['pid']} on {held['host']}) "
        f"since {since}; wait until it ends, or stop it"
    )
