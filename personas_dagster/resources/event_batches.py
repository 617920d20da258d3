"""Many Dagster events at once into its SQLite event log: a transaction a database, not an event.

What belongs here: how a batch is written, and what waits for its batch. That Dagster's storage
calls this is `storage.py`'s part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import AssetKeyTable, SqlEventLogStorageTable
from sqlalchemy.dialects import sqlite

_PLANNED = DagsterEventType.ASSET_MATERIALIZATION_PLANNED
_MADE = DagsterEventType.ASSET_MATERIALIZATION
_OF_OUTPUTS = (DagsterEventType.STEP_OUTPUT, _MADE)
_OF_ASSETS = (_PLANNED, _MADE)
_WAITING = "_personas_waiting"


@contextmanager
def together(instance: dg.DagsterInstance) -> Iterator[None]:
    """Store the events of a step's outputs in batches: when this process asks for any, and at the
    end. For results that are yielded after the work is done; elsewhere nobody would see them."""
    storage: Any = instance.event_log_storage
    waiting: list[EventLogEntry] = []
    storage.__dict__[_WAITING] = waiting
    try:
        yield
    finally:
        try:
            _flush(storage)
        finally:
            storage.__dict__.pop(_WAITING, None)


def waiting_for_batch(store: Callable[[Any, EventLogEntry], None]) -> Callable[..., None]:
    """`store_event` that lets events of outputs wait, within `together`."""

    @wraps(store)
    def stored(storage: Any, event: EventLogEntry) -> None:
        if _WAITING in storage.__dict__ and kind(event) in _OF_OUTPUTS:
            storage.__dict__[_WAITING].append(event)
        else:
            store(storage, event)

    return stored


def after_waiting(connect: Callable[..., Any]) -> Callable[..., AbstractContextManager[Any]]:
    """`_connect` that first stores what waits, so that it is found, and comes first."""

    @wraps(connect)
    def connected(storage: Any, shard: str) -> AbstractContextManager[Any]:
        _flush(storage)
        found: AbstractContextManager[Any] = connect(storage, shard)
        return found

    return connected


def _flush(storage: Any) -> None:
    waiting: list[EventLogEntry] = storage.__dict__.get(_WAITING) or []
    events = waiting[:]
    if not events:
        return
    del waiting[: len(events)]
    rows = [storage._event_to_row(event) for event in events]
    try:
        _store_of_run(storage, events, rows)
    except BaseException:
        waiting[:0] = events  # nothing of them was stored: they are tried again
        raise
    _store_of_assets(storage, events, rows)


def store_batch(storage: Any, events: Sequence[EventLogEntry]) -> None:
    """Store the planned assets of a run in one transaction a database, other events as ever."""
    planned = []
    for event in events:
        if kind(event) == _PLANNED:
            planned.append(event)
        else:
            storage.store_event(event)
    if planned:
        rows = [storage._event_to_row(event) for event in planned]
        _store_of_run(storage, planned, rows)
        _store_of_assets(storage, planned, rows)


def _store_of_run(storage: Any, events: Sequence[EventLogEntry], rows: list[Any]) -> None:
    with storage.run_connection(events[0].run_id) as connection:
        connection.execute(SqlEventLogStorageTable.insert(), rows)


def _store_of_assets(storage: Any, events: Sequence[EventLogEntry], rows: list[Any]) -> None:
    """Those of assets that were made or are planned, once more where assets are looked up."""
    of_assets = [(e, row) for e, row in zip(events, rows, strict=True) if kind(e) in _OF_ASSETS]
    if not of_assets:
        return
    with storage.index_transaction() as connection:
        has_times = storage._has_asset_key_index_cols_on_connection(connection)
        numbers, newest = [], {}
        for event, row in of_assets:
            inserted = connection.execute(SqlEventLogStorageTable.insert(), row)
            numbers.append(inserted.inserted_primary_key[0])
            values = storage._get_asset_entry_values(event, numbers[-1], has_times)
            newest[row["asset_key"]] = {"asset_key": row["asset_key"], **values}
        storage._store_asset_event_tags(connection, [event for event, _ in of_assets], numbers)
        _note_assets(connection, list(newest.values()))


def _note_assets(connection: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Put what was planned or made last into the table of assets."""
    columns = [name for name in rows[0] if name != "asset_key"]
    insert = sqlite.insert(AssetKeyTable)
    changed = {name: insert.excluded[name] for name in columns}
    connection.execute(insert.on_conflict_do_update(["asset_key"], set_=changed), rows)


def kind(event: EventLogEntry) -> DagsterEventType | None:
    """An event's type; None for a line of a log."""
    return event.dagster_event_type if event.is_dagster_event else None
