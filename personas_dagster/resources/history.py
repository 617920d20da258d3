"""What Dagster's own records say of a person: runs whose events or logs name them are removed."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from personas_dagster.resources.launch import dagster_home

_RUN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def home(root: Path) -> Path:
    """The folder of the project's Dagster instance."""
    return dagster_home(root)


def forget(root: Path, telling: Sequence[str]) -> int:
    """Remove the runs whose records hold one of these texts; how many.

    For an instance that keeps its records in files below its home, as it does by default.
    """
    found = home(root)
    words = re.compile(b"|".join(re.escape(text.encode()) for text in telling), re.IGNORECASE)
    if not telling:
        return 0
    runs = {
        run[0]
        for path in found.rglob("*")
        if path.is_file() and (run := _RUN.search(str(path.relative_to(found))))
        if words.search(path.read_bytes())
    }
    if not runs:
        return 0
    with dg.DagsterInstance.from_config(str(found)) as instance:
        for run_id in sorted(runs):
            with contextlib.suppress(Exception):  # its files go in any case
                instance.delete_run(run_id)
    for path in sorted(found.rglob("*"), reverse=True):
        inside = _RUN.search(path.name)
        if inside and inside[0] in runs:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    for path in found.rglob("*.db"):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            _forget(connection, telling)
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return len(runs)


def _forget(connection: sqlite3.Connection, telling: Sequence[str]) -> None:
    """What the removal of runs leaves in an index: an asset's last event, and checks' results."""
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        columns = connection.execute("SELECT name FROM pragma_table_info(?)", [table]).fetchall()
        for (column,) in columns:
            where = f'WHERE instr(lower("{column}"), lower(?)) > 0'
            change = (
                f'UPDATE "{table}" SET "{column}" = NULL {where}'
                if table == "asset_keys"
                else f'DELETE FROM "{table}" {where}'
            )
            for text in telling:
                connection.execute(change, [text])
