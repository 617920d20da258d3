"""SQL traits of a space: its declared queries, run against its warehouses.

What belongs here: the wiring between declarations, `warehouses` and `traits.sql`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

import pyarrow as pa

from personas_dagster import freshness, masking
from personas_dagster.errors import PersonasError, WarehouseError
from personas_dagster.identity import views
from personas_dagster.project import fields, models
from personas_dagster.refresh import Refresh, note
from personas_dagster.spaces import Space
from personas_dagster.traits import sql
from personas_dagster.traits.sql_rules import IDENTIFIERS
from personas_dagster.warehouses import lake_warehouse, open_warehouse


def refresh_sql_traits(
    space: Space, refresh: Refresh, *, only: Collection[str] | None = None
) -> sql.SqlTraitsRefresh:
    """Run the space's SQL traits (only these keys, if given) and record what changed.

    Identifiers that the graph does not know are put into landing, and count from the next
    refresh.
    """
    queries = [
        sql.SqlTraitQuery(key, partial(_open, space, trait))
        for key, trait in space.sql_traits.items()
        if only is None or key in only
    ]
    with space.engine.session(space.lake) as session:
        views.prepare(session)
        result = sql.refresh_sql_traits(
            session,
            space.lake,
            queries,
            known_types=IDENTIFIERS,
            at=refresh.as_of,
            refresh_id=refresh.refresh_id,
            files={key: str(space.project.sql_traits[key].path) for key in space.sql_traits},
        )
        if result.messages:
            folder = space.landing.incoming / sql.SOURCE
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / f"sql_traits-{refresh.refresh_id}.jsonl"
            partial_file = target.with_name(target.name + ".part")
            sql.write_messages(session, partial_file)
            partial_file.replace(target)
    _note(space, refresh, result)
    return result


def preview(space: Space, trait: models.SqlTrait) -> list[sql.PreviewRow]:
    """The first rows of a SQL trait's query, and the profiles that the graph knows for them.

    Nothing is stored. WarehouseError names the rule that these rows break. Without the permission
    `pii`, identifiers and values are masked.
    """
    with space.bare_session() as session, _open(space, trait) as reader:
        rows = sql.preview(session, reader, IDENTIFIERS)
    return rows if space.operator_has_pii else [_masked(row) for row in rows]


def _masked(row: sql.PreviewRow) -> sql.PreviewRow:
    return replace(
        row,
        identifiers={k: v and masking.mask_id(k, v) for k, v in row.identifiers.items()},
        values={k: v and masking.mask_value(k, v) for k, v in row.values.items()},
    )


def _note(space: Space, refresh: Refresh, result: sql.SqlTraitsRefresh) -> None:
    """Keep with the refresh what changed, and what ran: a failure makes what reads it stale."""
    ran = {
        **dict.fromkeys(result.errors),
        **{key: list(one.columns) for key, one in result.reports.items()},
    }
    changed = {k: n for one in result.reports.values() for k, n in one.changed.items()}
    note(space, refresh, sql_traits_changed=changed, **{freshness.SQL_TRAITS: ran})


def _open(space: Space, trait: models.SqlTrait) -> AbstractContextManager[pa.RecordBatchReader]:
    if trait.warehouse == "lake":
        return lake_warehouse(space.engine, space.snapshot()).stream(trait.query)
    declared = space.project.warehouses[trait.warehouse].model
    read: Callable[[], str] = partial(fields.resolve, declared.url)
    try:
        url = read()
    except PersonasError as error:
        raise WarehouseError(f"warehouse {trait.warehouse}: {error}") from error
    return open_warehouse(url).stream(trait.query)
