"""SQL traits: what a warehouse says about a person or an account.

What belongs here: a result on its way into the log `sql_traits`: staged (`sql_rows`), checked
(`sql_rules`), resolved to profiles, compared with what holds. What does not: connecting to
warehouses (`warehouses/`), and when it all runs.

The work tables `sql_*` live in the session. A value's source is the key of its SQL trait, so
that the log itself says which columns a SQL trait had before.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from personas_dagster.errors import WarehouseError
from personas_dagster.interfaces import Lake, Session
from personas_dagster.traits import sql_rules
from personas_dagster.traits.changes import current, record
from personas_dagster.traits.sql_rows import stage
from personas_dagster.traits.sql_rules import Owners, Shape

SOURCE = "sql_trait"
"""The source id under which the messages of SQL traits are to be landed."""


@dataclass(frozen=True)
class SqlTraitQuery:
    """A SQL trait that is due. `open` starts its query (`partial(warehouse.stream, query)`);
    what it raises as a WarehouseError becomes the error of this SQL trait alone.
    """

    key: str
    open: Callable[[], AbstractContextManager[pa.RecordBatchReader]]


@dataclass(frozen=True)
class SqlTraitReport:
    """What became of one SQL trait.

    `columns` are its traits; `changed` counts profiles per trait, those of columns that it no
    longer returns included. `unknown` counts the keys that the graph does not know: their values
    are stored by the next run after a refresh took in their messages.
    """

    key: str
    collection: str
    rows: int
    columns: tuple[str, ...]
    changed: Mapping[str, int]
    unknown: int
    too_large: int
    too_large_samples: tuple[str, ...]


@dataclass(frozen=True)
class SqlTraitsRefresh:
    """Reports of what was stored, errors of what was not, by the keys of the SQL traits."""

    reports: Mapping[str, SqlTraitReport]
    errors: Mapping[str, WarehouseError]
    messages: int


@dataclass(frozen=True)
class PreviewRow:
    """One row of a result; `profile_id` is None where the graph does not know the key."""

    identifiers: Mapping[str, str | None]
    values: Mapping[str, str | None]
    profile_id: str | None
    is_too_large: bool


def refresh_sql_traits(
    session: Session,
    lake: Lake,
    queries: Sequence[SqlTraitQuery],
    *,
    known_types: Collection[str],
    at: dt.datetime,
    refresh_id: int,
    files: Mapping[str, str] | None = None,
) -> SqlTraitsRefresh:
    """Bring `sql_traits` up to what the queries return, in one append.

    The session must have the graph's relations. A SQL trait that breaks a rule, or whose
    warehouse fails, ends in `errors`, and its values stay as they are. Identifiers and links that
    the graph does not hold become messages, which `write_messages` writes. `files`: where each
    SQL trait of the space is declared, also those that do not run now; theirs stay theirs.
    """
    session.view("sql_traits")
    written = session.fetch(_WRITTEN, [refresh_id]).column(0)[0].as_py()
    current(session, "sql_traits")
    for statement in _TABLES:
        session.run(statement)
    reports: dict[str, SqlTraitReport] = {}
    errors: dict[str, WarehouseError] = {}
    for query in queries:
        try:
            with _named(query.key):
                with query.open() as reader:
                    shape, rows = stage(session, reader, known_types)
                sql_rules.check_rows(session, shape)
                ran = {other: report.columns for other, report in reports.items()}
                Owners(files or {}, ran).check(session, query.key, shape)
        except WarehouseError as error:
            errors[query.key] = error
            continue
        reports[query.key] = _settle(session, query.key, shape, rows, at)
    counts = record(
        session,
        lake,
        "sql_traits",
        now_values="sql_now",
        before="sql_before",
        at=at,
        refresh_id=refresh_id,
    )
    owners = session.fetch(_OWNERS).to_pylist()
    for key, report in list(reports.items()):
        columns = [row["key"] for row in owners if row["trait"] == key]
        changed = {name: counts[name] for name in columns if name in counts}
        if changed and written:  # the lake takes one append of a refresh, and has it
            errors[key] = WarehouseError(
                f"SQL trait `{key}`: refresh {refresh_id} has written its SQL traits already; "
                "what changed since is taken up by the next refresh"
            )
            del reports[key]
        else:
            reports[key] = _with_changed(report, changed)
    messages = session.fetch("SELECT count(*) FROM sql_messages").column(0)[0].as_py()
    return SqlTraitsRefresh(reports, errors, messages)


def refresh_sql_trait(
    session: Session,
    lake: Lake,
    *,
    key: str,
    reader: pa.RecordBatchReader,
    known_types: Collection[str],
    at: dt.datetime,
    refresh_id: int,
) -> SqlTraitReport:
    """`refresh_sql_traits` for a single one, whose error is raised."""
    query = SqlTraitQuery(key, lambda: nullcontext(reader))
    done = refresh_sql_traits(
        session, lake, [query], known_types=known_types, at=at, refresh_id=refresh_id
    )
    if key in done.errors:
        raise done.errors[key]
    return done.reports[key]


def write_messages(session: Session, path: Path) -> int:
    """Write the messages of the last `refresh_sql_traits` of this session as JSON lines.

    Returns how many; the file is to be landed under the source `SOURCE`. Without messages no
    file is made.
    """
    written = 0
    for batch in session.stream("SELECT line FROM sql_messages ORDER BY line"):
        with path.open("a" if written else "w", encoding="utf-8") as file:
            file.write("\n".join(batch.column(0).to_pylist()) + "\n")
        written += batch.num_rows
    return written


def preview(
    session: Session,
    reader: pa.RecordBatchReader,
    known_types: Collection[str],
    *,
    sample: int = 20,
) -> list[PreviewRow]:
    """The first rows of a result, and the profiles that the graph knows for them.

    The rules are checked on these rows; nothing is stored.
    """
    shape, _ = stage(session, reader, known_types, limit=sample)
    sql_rules.check_rows(session, shape)
    _resolve(session, shape)
    found = session.fetch(_PREVIEW, [sql_rules.MAX_ROW_BYTES]).to_pylist()
    return [
        PreviewRow(
            {name: row[name] for name in shape.identifiers},
            dict(zip(shape.traits, row["said"], strict=True)),
            row["profile_id"],
            row["is_too_large"],
        )
        for row in found
    ]


@contextmanager
def _named(key: str) -> Iterator[None]:
    try:
        yield
    except WarehouseError as error:
        raise WarehouseError(f"SQL trait `{key}`: {error}") from error


def _settle(session: Session, key: str, shape: Shape, rows: int, at: dt.datetime) -> SqlTraitReport:
    """Add the staged result to what will be recorded, and its unknown identifiers to messages."""
    large, shown = sql_rules.too_large(session, shape)
    if large:
        session.run("DELETE FROM sql_rows WHERE bytes > $1", [sql_rules.MAX_ROW_BYTES])
    _resolve(session, shape)
    unknown = session.fetch(_UNKNOWN).column(0)[0].as_py()
    session.run(_CHOOSE, [shape.collection, key, at])
    session.run(_ADD_COLUMNS, [key, shape.collection, list(shape.traits)])
    session.run(_SAY, [shape.key, at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")])
    return SqlTraitReport(key, shape.collection, rows, shape.traits, {}, unknown, large, shown)


def _resolve(session: Session, shape: Shape) -> None:
    session.run(_IDS)
    session.run(_RESOLVE, [shape.key])


def _with_changed(report: SqlTraitReport, changed: Mapping[str, int]) -> SqlTraitReport:
    return SqlTraitReport(**{**vars(report), "changed": changed})


_WRITTEN = "SELECT count(*) > 0 FROM sql_traits WHERE refresh_id = $1"
_TABLES = (
    """
    CREATE OR REPLACE TEMP TABLE sql_values(
        collection VARCHAR, profile_id VARCHAR, said VARCHAR[], updated_at TIMESTAMPTZ,
        source_id VARCHAR)
    """,
    "CREATE OR REPLACE TEMP TABLE sql_columns(trait VARCHAR, collection VARCHAR, keys VARCHAR[])",
    "CREATE OR REPLACE TEMP TABLE sql_messages(line VARCHAR)",
    """
    CREATE OR REPLACE TEMP VIEW sql_now AS
    SELECT * FROM (
        SELECT v.collection, v.profile_id, unnest(c.keys) AS key, unnest(v.said) AS value,
               v.updated_at, v.source_id
        FROM sql_values v JOIN sql_columns c ON c.trait = v.source_id
    ) WHERE value IS NOT NULL
    """,
    # What a SQL trait had before, under the columns it returns now or under any other.
    """
    CREATE OR REPLACE TEMP VIEW sql_before AS
    SELECT b.* FROM current_sql_traits b
    WHERE b.source_id IN (SELECT trait FROM sql_columns)
       OR (b.collection, b.key) IN (SELECT (collection, unnest(keys)) FROM sql_columns)
    """,
)
_IDS = """
CREATE OR REPLACE TEMP TABLE sql_ids AS
SELECT * FROM (
    SELECT place, unnest(['user_id', 'anonymous_id', 'email', 'group_id']) AS type,
           unnest([user_id, anonymous_id, email, group_id]) AS value
    FROM sql_rows
) WHERE value IS NOT NULL
"""
# `is_known`: the graph holds every identifier of the row, and those of the user on one profile.
_RESOLVE = """
CREATE OR REPLACE TEMP TABLE sql_resolved AS
SELECT i.place,
       max(g.profile_id) FILTER (WHERE i.type = $1) AS profile_id,
       max(g.first_seen_at) FILTER (WHERE i.type = $1) AS first_seen_at,
       max(g.profile_id) FILTER (WHERE i.type = 'group_id') AS account_id,
       bool_and(g.profile_id IS NOT NULL)
           AND coalesce(min(g.profile_id) FILTER (WHERE i.type <> 'group_id')
                        = max(g.profile_id) FILTER (WHERE i.type <> 'group_id'), true) AS is_known
FROM sql_ids i LEFT JOIN graph_identifiers g
ON g.type = i.type AND g.value = i.value
   AND g.collection = CASE i.type WHEN 'group_id' THEN 'accounts' ELSE 'users' END
GROUP BY i.place
"""
_UNKNOWN = """
SELECT count(DISTINCT r.key) FROM sql_rows r JOIN sql_resolved s USING (place)
WHERE s.profile_id IS NULL
"""
# Of several rows of one profile, the one whose identifier was first seen last; ties go to the
# greatest identifier, then to the greatest account.
_CHOOSE = """
INSERT INTO sql_values
SELECT $1, s.profile_id, arg_max(r.said, (s.first_seen_at, r.key, coalesce(r.group_id, ''))),
       $3, $2
FROM sql_rows r JOIN sql_resolved s USING (place)
WHERE s.profile_id IS NOT NULL GROUP BY s.profile_id
"""
_ADD_COLUMNS = "INSERT INTO sql_columns VALUES ($1, $2, $3)"
_OWNERS = """
SELECT trait, unnest(keys) AS key FROM sql_columns
UNION
SELECT source_id, key FROM sql_before
WHERE source_id IN (SELECT trait FROM sql_columns)
  AND key NOT IN (SELECT unnest(keys) FROM sql_columns)
ORDER BY trait, key
"""
# An id derives from its identifiers, so that a message that waits to be taken in is told once.
_SAY = """
INSERT INTO sql_messages
SELECT DISTINCT CASE WHEN group_id IS NULL
    THEN to_json({'type': 'identify', 'messageId': id, 'timestamp': now, 'receivedAt': now,
                  'context': {'externalIds': ids}, 'traits': '{}'::JSON})
    ELSE to_json({'type': 'group', 'messageId': id, 'timestamp': now, 'receivedAt': now,
                  'groupId': group_id, 'context': {'externalIds': ids}, 'traits': '{}'::JSON})
    END::VARCHAR
FROM (
    SELECT group_id, ids, $2 AS now,
           'sql-trait-' || md5(to_json({'group_id': group_id, 'ids': ids})::VARCHAR) AS id
    FROM (
        SELECT r.group_id,
               [x FOR x IN [
                   {'id': r.user_id, 'type': 'user_id', 'collection': 'users',
                    'encoding': 'none'},
                   {'id': r.anonymous_id, 'type': 'anonymous_id', 'collection': 'users',
                    'encoding': 'none'},
                   {'id': r.email, 'type': 'email', 'collection': 'users', 'encoding': 'none'}
               ] IF x.id IS NOT NULL] AS ids
        FROM sql_rows r JOIN sql_resolved s USING (place)
        LEFT JOIN graph_links l
        ON l.user_profile_id = s.profile_id AND l.account_profile_id = s.account_id
        WHERE NOT s.is_known
           OR ($1 <> 'group_id' AND r.group_id IS NOT NULL AND l.user_profile_id IS NULL)
    )
)
"""
_PREVIEW = """
SELECT r.*, r.bytes > $1 AS is_too_large, s.profile_id
FROM sql_rows r LEFT JOIN sql_resolved s USING (place) ORDER BY r.place
"""
