"""A SQL trait's result, batch by batch, into the work table `sql_rows` of a session.

What belongs here: normal forms of identifiers and values, and how many rows there may be. What a
row means is decided when all of them are there (`sql.py`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
from sqlglot import exp

from personas_dagster.interfaces import Session
from personas_dagster.query.sql import call, cast, column, text
from personas_dagster.query.values import number_text
from personas_dagster.traits import sql_rules
from personas_dagster.traits.sql_rules import IDENTIFIERS, Shape

_ROWS = """
CREATE OR REPLACE TEMP TABLE sql_rows(
    place BIGINT, key VARCHAR, user_id VARCHAR, anonymous_id VARCHAR, email VARCHAR,
    group_id VARCHAR, said VARCHAR[],
    bytes BIGINT GENERATED ALWAYS AS (
        strlen(concat(user_id, anonymous_id, email, group_id, array_to_string(said, ''))))
)
"""


def stage(
    session: Session,
    reader: pa.RecordBatchReader,
    known_types: Collection[str],
    *,
    limit: int | None = None,
) -> tuple[Shape, int]:
    """Leave `sql_rows(place, key, <identifiers>, said, bytes)`; returns the shape and how many.

    `said` is one JSON text per trait column; `bytes` counts identifiers and values.
    """
    schema = reader.schema
    shape = sql_rules.shape_of(schema, known_types)
    session.run(_ROWS)
    insert = _insert(schema, shape).sql(dialect="duckdb")
    rows = 0
    for batch in reader:
        if limit is not None:
            batch = batch.slice(0, limit - rows)
        session.register("sql_batch", _numbered(batch, shape, rows))
        session.run(insert)
        rows += batch.num_rows
        sql_rules.check_count(rows)
        if rows == limit:
            break
    return shape, rows


def _numbered(batch: pa.RecordBatch, shape: Shape, start: int) -> pa.Table:
    places = pa.array(np.arange(start, start + batch.num_rows, dtype=np.int64))
    columns: dict[str, Any] = {"place": places}
    for name in IDENTIFIERS:
        columns[name] = (
            sql_rules.identifier(name, batch.column(name))
            if name in shape.identifiers
            else pa.nulls(batch.num_rows, pa.string())
        )
    columns["key"] = columns[shape.key]
    # Traits go by their number: no name of theirs can meet another.
    return pa.table({**columns, **{f"_{n}": batch.column(t) for n, t in enumerate(shape.traits)}})


def _insert(schema: pa.Schema, shape: Shape) -> exp.Insert:
    said = [_json(column(f"_{n}"), schema.field(t).type) for n, t in enumerate(shape.traits)]
    plain = [column(name) for name in ("place", "key", *IDENTIFIERS)]
    select = exp.select(*plain, exp.Array(expressions=said)).from_("sql_batch")
    return exp.insert(select, "sql_rows", columns=["place", "key", *IDENTIFIERS, "said"])


def _json(item: exp.Expr, found: pa.DataType) -> exp.Expr:
    """A value as canonical JSON text: shortest numbers, instants as ISO 8601 with Z."""
    match sql_rules.kind_of(found):
        case "number":
            return number_text(item)
        case "whole" | "boolean":
            return cast(item, "VARCHAR")
        case "text":
            return cast(call("to_json", cast(item, "VARCHAR")), "VARCHAR")
        case "date":
            return _joined(text('"'), call("strftime", item, text("%Y-%m-%d")), text('"'))
        case "instant":
            fraction = call("strftime", item.copy(), text(".%f"))
            short = call("regexp_replace", fraction, text(r"\.?0+$"), text(""))
            whole = call("strftime", item, text("%Y-%m-%dT%H:%M:%S"))
            return _joined(text('"'), whole, short, text('Z"'))
    return cast(exp.Null(), "VARCHAR")


def _joined(*parts: exp.Expr) -> exp.Expr:
    """Null where a part is null."""
    joined = parts[0]
    for part in parts[1:]:
        joined = exp.DPipe(this=joined, expression=part)
    return joined
