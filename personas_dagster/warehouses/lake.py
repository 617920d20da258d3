"""`warehouse: lake`: a SELECT over the space's own tables, in a session of its own.

Two fences keep a query on those tables: its tree is checked before it runs, and the engine is
told to open no file but theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from personas_dagster.errors import WarehouseError
from personas_dagster.interfaces import Engine, Lake, Session
from personas_dagster.lake.tables import TABLES

READABLE = tuple(name for name in TABLES if not name.startswith("candidate_"))
_TABLE_FUNCTIONS = ("unnest", "range", "generate_series", "json_each", "json_tree")
_REFUSED_NAMES = {
    "current_setting",
    "getenv",
    "getvariable",
    "glob",
    "json_execute_serialized_sql",
    "query",
    "query_table",
    "which_secret",
    "write_log",
}
_REFUSED_PREFIXES = ("read_", "parquet_", "sniff_", "duckdb_", "pragma_", "sqlite_", "postgres_")
_REFUSED_NODES = (exp.DML, exp.DDL, exp.Command, exp.Into, exp.Describe, exp.Summarize)


def lake_warehouse(engine: Engine, lake: Lake) -> LakeWarehouse:
    """The lake as a warehouse; pass a snapshot (`lake.at`) to read what is published."""
    return LakeWarehouse(engine, lake)


class LakeWarehouse:
    """Answers one SELECT at a time; each in a session of its own, so that its result can be
    streamed while another session works.
    """

    def __init__(self, engine: Engine, lake: Lake) -> None:
        self._engine, self._lake = engine, lake

    @contextmanager
    def stream(self, query: str) -> Iterator[pa.RecordBatchReader]:
        """The query's result in batches."""
        tree, tables = check(query)
        with self._engine.session(self._lake) as session:
            for table in tables:
                session.view(table)
            if self._engine.dialect == "duckdb":
                self._close_off(session, tables)
            with _border():
                reader = session.stream(tree)
            yield pa.RecordBatchReader.from_batches(reader.schema, _batches(reader))

    def _close_off(self, session: Session, tables: list[str]) -> None:
        paths = [exp.Literal.string(path) for name in tables for path in self._lake.files(name)]
        session.run(f"SET allowed_paths = {exp.Array(expressions=paths).sql(dialect='duckdb')}")
        session.run("SET enable_external_access = false")
        session.run("SET lock_configuration = true")


def check(query: str) -> tuple[exp.Query, list[str]]:
    """The query's tree and the lake's tables in it; a WarehouseError unless it is one SELECT
    over nothing else.

    >>> check("WITH p AS (FROM profiles) SELECT * FROM p")[1]
    ['profiles']
    """
    try:
        statements = [found for found in sqlglot.parse(query, dialect="duckdb") if found]
    except SqlglotError as error:
        reason = str(error).splitlines()[0]
        raise WarehouseError(f"the query does not parse: {reason}; write one SELECT") from None
    tree = statements[0] if len(statements) == 1 else None
    if not isinstance(tree, exp.Query):
        found = tree.key.upper() if tree else f"{len(statements)} statements"
        raise WarehouseError(f"the lake is read only: expected one SELECT, found {found}")
    if refused := tree.find(*_REFUSED_NODES):
        raise WarehouseError(f"the lake is read only: the query may not hold {refused.key.upper()}")
    for function in tree.find_all(exp.Func):
        _check_function(function)
    names = {_table(table) for table in tree.find_all(exp.Table)}
    return tree, sorted(name for name in names if name)


def _table(table: exp.Table) -> str | None:
    """The lake's table that a place of the tree reads; None for a CTE or a list of numbers."""
    name = table.name.lower()
    if isinstance(table.this, exp.Func):
        name = _name(table.this)
        if name in _TABLE_FUNCTIONS:
            return None
        raise WarehouseError(
            f"the function `{name}` cannot be read from; possible: {', '.join(_TABLE_FUNCTIONS)}"
        )
    if not table.db and not table.catalog:
        if _is_cte(table, name):
            return None
        if name in READABLE:
            return name
    raise WarehouseError(
        f"the lake has no table `{table.sql(dialect='duckdb')}`; it has {', '.join(READABLE)}"
    )


def _is_cte(table: exp.Table, name: str) -> bool:
    """Whether a CTE of that name is in scope: those before it, or all of an outer query."""
    node: exp.Expr | None = table
    while node is not None and node.parent is not None:
        parent = node.parent
        visible: list[exp.Expr] = []
        if isinstance(parent, exp.With):
            place = next(i for i, cte in enumerate(parent.expressions) if cte is node)
            visible = parent.expressions[: place + bool(parent.args.get("recursive"))]
        elif not isinstance(node, exp.With) and isinstance(parent, exp.Query):
            outer = next((w for w in parent.args.values() if isinstance(w, exp.With)), None)
            visible = outer.expressions if outer else []
        if any(cte.alias.lower() == name for cte in visible):
            return True
        node = parent
    return False


def _check_function(function: exp.Func) -> None:
    name = _name(function)
    if name in _REFUSED_NAMES or name.startswith(_REFUSED_PREFIXES) or name.endswith("_scan"):
        raise WarehouseError(
            f"the function `{name}` is refused: a SQL trait on the lake reads the lake's tables "
            "and nothing else"
        )


def _name(function: exp.Func) -> str:
    if isinstance(function, exp.Anonymous):
        return str(function.name).lower()
    return function.sql_name().lower()


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while True:
        with _border():
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
        yield batch


@contextmanager
def _border() -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:500]
        raise WarehouseError(f"the query failed on the lake: {reason}; mend the query") from error
