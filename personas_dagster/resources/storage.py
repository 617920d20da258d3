"""Dagster's SQLite event log, kept from repeating itself.

It makes a new engine and connection for each event and each question, so that every statement is
compiled anew, every schema looked at again and the disk waited for; it writes the planned assets
of a run and the outputs of a step one by one (`event_batches.py`), lists all outputs for each, and
asks for the records of an operation's inputs one by one. With a few hundred definitions that is
most of an hourly run. What is stored stays the same. Private parts of Dagster are replaced in this
process, since no setting reaches them: hence `dagster<1.14` and tests that count; a Dagster without
one of them is left as it is.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.execution.context.system import StepExecutionContext
from dagster._core.execution.plan import execute_step
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from personas_dagster.resources.event_batches import after_waiting, store_batch, waiting_for_batch

_KEPT_ENGINES = 8  # databases: one for all runs, and one a run
_BATCH = 500  # planned events
_REPLACED = (
    (sqlite_event_log, "create_engine"),
    (SqliteEventLogStorage, "has_secondary_index"),
    (SqliteEventLogStorage, "has_asset_key_col"),
    (SqliteEventLogStorage, "_has_asset_key_col_on_connection"),
    (SqliteEventLogStorage, "store_event"),
    (SqliteEventLogStorage, "store_event_batch"),
    (SqliteEventLogStorage, "_connect"),
    (SqliteEventLogStorage, "_event_to_row"),
    (SqliteEventLogStorage, "_get_asset_entry_values"),
    (SqliteEventLogStorage, "_has_asset_key_index_cols_on_connection"),
    (SqliteEventLogStorage, "_store_asset_event_tags"),
    (StepExecutionContext, "get_output_asset_keys"),
    (execute_step, "_get_input_provenance_data"),
)
_make_engine = sa.create_engine
_engines: dict[str, sa.Engine] = {}


def make_cheap() -> None:
    """Let every SQLite event log of this process keep its engines; once is enough."""
    log: Any = sqlite_event_log
    is_known = all(hasattr(owner, name) for owner, name in _REPLACED)
    if not is_known or log.create_engine is _kept_engine:
        return
    log.create_engine = _kept_engine
    atexit.register(_let_go)
    storage: Any = SqliteEventLogStorage
    storage.has_secondary_index = _remembered(storage.has_secondary_index, of=0)
    storage.has_asset_key_col = _remembered(storage.has_asset_key_col, of=0)
    on_connection = storage._has_asset_key_col_on_connection
    storage._has_asset_key_col_on_connection = _remembered(on_connection, of=1)
    storage.store_event = waiting_for_batch(storage.store_event)
    storage.store_event_batch = store_batch
    storage._connect = after_waiting(storage._connect)
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(_BATCH))
    context: Any = StepExecutionContext
    context.get_output_asset_keys = _once(context.get_output_asset_keys)
    steps: Any = execute_step
    steps._get_input_provenance_data = _fetched_at_once(steps._get_input_provenance_data)


def _kept_engine(url: str, **options: Any) -> sa.Engine:
    """An engine that keeps its connection: SQLite writes its log into the database, and waits for
    the disk, each time the last one is closed. Engines are dropped oldest first."""
    engine = _engines.pop(url, None)
    if engine is None:
        engine = _make_engine(url, **{**options, "poolclass": sa.QueuePool})
        sa.event.listen(engine, "connect", _opened)
        sa.event.listen(engine, "checkout", _still_there)
        setattr(engine, "dispose", lambda: None)  # noqa: B010 - Dagster does so after each event
    _engines[url] = engine
    while len(_engines) > _KEPT_ENGINES:
        sa.Engine.dispose(_engines.pop(next(iter(_engines))))
    return engine


def _let_go() -> None:
    """Close the connections, so that SQLite leaves one file of a database and not three."""
    for engine in _engines.values():
        sa.Engine.dispose(engine)


def _opened(connection: Any, record: Any) -> None:
    # After a power cut the last events may be gone from the log; the lake does not read it.
    connection.execute("PRAGMA synchronous=NORMAL")
    record.info["of"] = _file_of(connection)


def _still_there(connection: Any, record: Any, _: object) -> None:
    """A connection is not used for a file that was replaced, nor in another process."""
    if record.info["of"] != _file_of(connection):
        raise sa.exc.DisconnectionError


def _file_of(connection: Any) -> tuple[int, int, int] | None:
    _, _, path = connection.execute("PRAGMA database_list").fetchone()
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return None
    return os.getpid(), found.st_dev, found.st_ino


def _remembered(ask: Callable[..., bool], *, of: int) -> Callable[..., bool]:
    """A question about the schema that is not asked again once it was answered with yes."""

    @wraps(ask)
    def asked(storage: Any, *arguments: Any) -> bool:
        known: set[tuple[str, str]] = storage.__dict__.setdefault("_personas_known", set())
        question = (ask.__name__, arguments[of])
        if question not in known and ask(storage, *arguments):
            known.add(question)
        return question in known

    return asked


def _once(ask: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What a step can put out, found once: each output asks for all of them."""

    @wraps(ask)
    def asked(context: Any) -> Any:
        known = context.__dict__
        if "_personas_output_keys" not in known:
            known["_personas_output_keys"] = frozenset(ask(context))
        return known["_personas_output_keys"]

    return asked


def _fetched_at_once(provenance: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """What an asset was made from, with the records of all its inputs asked for at once: and
    with them of all that the step has made so far, from which others may be made."""

    @wraps(provenance)
    def fetched(asset_key: dg.AssetKey, step: Any) -> Any:
        cache = step._data_version_cache
        made: list[dg.AssetKey] = step.__dict__.setdefault("_personas_made", [])
        inputs = step.job_def.asset_layer.get(asset_key).parent_keys
        known = cache.input_asset_version_info
        if any(key not in known for key in inputs):
            asked = [key for key in dict.fromkeys([*inputs, *made]) if key not in known]
            cache._fetch_input_asset_version_info(asked)
        made.append(asset_key)
        return provenance(asset_key, step)

    return fetched
