"""What queries and syncs see: profiles, messages, traits and memberships of one snapshot.

`prepare_values` leaves `trait_values(class, collection, profile_id, key, value, updated_at,
source_id)`, current values only, and `members(audience, collection, profile_id, entered_at)`.
`prepare_world` leaves the relations that `query.evaluate` reads: `messages`, `profiles`,
`traits`, `former_members`, `account_links`. Both need the graph's relations.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import pyarrow as pa
from sqlglot import exp

from personas_dagster.interfaces import Session
from personas_dagster.lake.halves import same
from personas_dagster.query import Layer, Plan, Typed, evaluate, sql
from personas_dagster.query.compile_events import MESSAGES
from personas_dagster.query.sliced import can_be_sliced, evaluate_sliced
from personas_dagster.traits.changes import current
from personas_dagster.traits.slices import Slice, slices

# The last row of an audience and profile holds; merged profiles that are in are one member.
_LAST_ROW = """
           arg_max(a.entered_at, coalesce(a.refresh_id, 0)) AS entered_at,
           arg_max(a.exited_at IS NOT NULL, coalesce(a.refresh_id, 0)) AS has_exited
"""
_STORED_MEMBERS = f"""
CREATE OR REPLACE TEMP VIEW stored_members AS
SELECT a.audience, a.collection, {{root}} AS profile_id, a.profile_id AS stored_id, a.entered_at
FROM (
    SELECT a.audience, a.collection, a.profile_id, {_LAST_ROW}
    FROM audience_memberships a GROUP BY ALL
) a {{joined}}
WHERE NOT a.has_exited
"""
# Few, and asked for more than once: by numbers, the ids are put back where they are asked for.
_MEMBERS_OF = (
    f"""
    CREATE OR REPLACE TEMP TABLE members_of AS
    SELECT audience, collection, profile_id, stored, entered_at FROM (
        SELECT a.audience, a.collection, m.root_id AS profile_id, m.rowid AS stored, {_LAST_ROW}
        FROM audience_memberships a JOIN {{of}} m USING (profile_id) GROUP BY ALL
    ) WHERE NOT has_exited
    """,
    """
    CREATE OR REPLACE TEMP VIEW stored_members AS
    SELECT a.audience, a.collection, a.profile_id, m.profile_id AS stored_id, a.entered_at
    FROM members_of a JOIN {of} m ON m.rowid = a.stored
    """,
)
_MEMBERS = """
CREATE OR REPLACE TEMP VIEW members AS
SELECT audience, collection, profile_id, min(entered_at) AS entered_at
FROM {stored} GROUP BY ALL
"""
# Whoever was ever in: for those who are in no more, the audience is false and not absent. Those
# who are still in count as well, so that one who leaves in this refresh is false in it already.
_FORMER = """
CREATE OR REPLACE TEMP TABLE all_former_members AS
SELECT DISTINCT c.audience, coalesce(m.parent_id, c.profile_id) AS profile_id
FROM audience_changes c LEFT JOIN graph_parents m ON m.child_id = c.profile_id
WHERE $1 IS NULL OR c.as_of <= $1::TIMESTAMPTZ
"""
# A view: what definitions ask of it is of few audiences.
_FORMER_OF = """
CREATE OR REPLACE TEMP VIEW former_members AS
SELECT DISTINCT c.audience, t.root_id AS profile_id
FROM audience_changes c JOIN {of} t USING (profile_id)
"""
# A trait or audience whose definition is gone stays on the profiles as a custom trait.
_VALUES = """
CREATE OR REPLACE TEMP VIEW trait_values AS
SELECT 'custom_trait' AS class, collection, profile_id, key, value, updated_at, source_id
FROM current_custom_traits
UNION ALL
SELECT CASE WHEN d.key IS NULL THEN 'custom_trait' ELSE 'computed_trait' END, c.collection,
       c.profile_id, c.key, c.value, c.updated_at, c.source_id
FROM current_computed_traits c LEFT JOIN defined_keys d USING (key)
WHERE d.key IS NOT NULL OR NOT EXISTS (
    SELECT 1 FROM current_custom_traits o
    WHERE o.collection = c.collection AND o.profile_id = c.profile_id AND o.key = c.key)
UNION ALL
SELECT 'sql_trait', collection, profile_id, key, value, updated_at, source_id
FROM current_sql_traits
"""
_ROWS = """
SELECT e.event, {root} AS profile_id, e.timestamp, e.received_at, e.message_id, e.source_id,
       e.properties, e.context{typed}
FROM {table} e {joined}
"""
_MESSAGES = "CREATE OR REPLACE TEMP VIEW {name} AS {rows}"
_ALL_ROOTS = {
    "root": "coalesce(m.parent_id, {of}.profile_id)",
    "joined": "LEFT JOIN graph_parents m ON m.child_id = {of}.profile_id",
}
# By integers, which are read and sought in half the time of texts; files of earlier versions have
# none.
_BY_HALVES = f"JOIN {{of}} m ON {same('m.profile', 'e.profile')}"
_BY_TEXT = "JOIN {of} m ON m.profile_id = e.profile_id WHERE e.profile_low IS NULL"
_ANY_MERGE = "SELECT 1 FROM graph_parents LIMIT 1"
_PROFILES = """
CREATE OR REPLACE TEMP TABLE profiles AS
SELECT g.collection, g.profile_id,
       coalesce(bool_or(i.type IN ('user_id', 'email', 'android.idfa', 'ios.idfa')), false)
           AS is_known,
       coalesce(bool_or(i.type = 'anonymous_id'), false) AS has_anonymous_id
FROM {roots} g LEFT JOIN {identifiers} i USING (profile_id)
GROUP BY ALL
"""
_ROOTS_OF = """(
    SELECT g.collection, o.root_id AS profile_id
    FROM graph_profiles g JOIN {of} o USING (profile_id)
)"""
_IDENTIFIERS_OF = f"""(
    SELECT m.root_id AS profile_id, e.type FROM identifiers e {_BY_HALVES}
    UNION ALL
    SELECT m.root_id, e.type FROM identifiers e {_BY_TEXT}
)"""
_LINKS_OF = """
SELECT u.root_id AS user_profile_id, a.root_id AS account_profile_id
FROM graph_links l JOIN {of} u ON u.profile_id = l.user_profile_id
JOIN {of} a ON a.profile_id = l.account_profile_id
"""
_TRAITS = """
CREATE OR REPLACE TEMP VIEW traits AS
SELECT collection, profile_id, key, arg_min(value, class) AS value FROM (
    SELECT collection, profile_id, key, value,
           CASE class WHEN 'computed_trait' THEN 0 WHEN 'sql_trait' THEN 1 ELSE 2 END AS class
    FROM trait_values
    UNION ALL
    SELECT collection, profile_id, audience, 'true', -2 FROM members
    UNION ALL
    SELECT p.collection, f.profile_id, f.audience, 'false', -1
    FROM former_members f JOIN profiles p USING (profile_id)
) GROUP BY ALL
"""


# Columns that only settle the order of an event's messages at one instant; mostly there are none
# such, and to read these columns costs as much as all others.
LATE = {"received_at": "TIMESTAMPTZ", "message_id": "VARCHAR"}
_TIED = """
CREATE OR REPLACE TEMP TABLE tied AS
SELECT o.* FROM {of} o WHERE o.root_id IN (
    SELECT profile_id FROM ({stamps}) GROUP BY event, profile_id, timestamp HAVING count(*) > 1)
"""


MOST = 20_000_000  # messages that are evaluated at once
_SLICED_PROFILES = """
CREATE OR REPLACE TEMP TABLE profiles AS SELECT * FROM all_profiles WHERE {some}
"""
# Messages of profiles that were merged into others: of all, and of a slice.
_STRAYS, _OWN_STRAYS = "strays_of_", "own_strays_of_"
_CHILDREN = """
CREATE OR REPLACE TEMP TABLE children AS SELECT child_id FROM graph_parents WHERE {some}
"""
_NO_CHILDREN = "ANTI JOIN children m ON m.child_id = e.profile_id"
_OF_PARENTS = "JOIN graph_parents m ON m.child_id = e.profile_id"


def prepare_values(
    session: Session,
    *,
    defined: Collection[str],
    of: str | None = None,
    keys: Sequence[str] | None = None,
) -> None:
    """`trait_values` and `members`; `defined` are the keys of the space's computed traits.

    Of all profiles, or of those in the table `of(profile_id, root_id, is_root)`, which holds
    every child too, and whose roots may go by other names, numbers for instance; of all traits, or
    of those named `keys`.
    """
    for table in ("custom_traits", "computed_traits", "sql_traits"):
        current(session, table, roots=of, keys=keys)
    session.register("defined_keys", pa.table({"key": pa.array(sorted(defined), pa.string())}))
    session.view("audience_memberships")
    session.run(_VALUES)
    if of:
        for statement in _MEMBERS_OF:
            session.run(statement.format(of=_quoted(of)))
    else:
        session.run(_STORED_MEMBERS.format(**_roots(session, "a")))
    session.run(_MEMBERS.format(stored="members_of" if of else "stored_members"))


def prepare_world(
    session: Session,
    *,
    as_of: dt.datetime | None = None,
    typed: Collection[Typed] = (),
    of: str | None = None,
) -> Sequence[Layer]:
    """The relations of `query.evaluate`, on top of `prepare_values`.

    `as_of`: who had ever been in an audience by then. Returns the layers that a plan reads
    messages from: relations that hold those of the columns in `typed` that are filled. `of` is a
    relation (profile_id, root_id, profile_high, profile_low) that messages, profiles and links are
    limited to, as there.
    """
    layers = prepare_messages(session, typed, of=of)
    prepare_profiles(session, of=of)
    links = _LINKS_OF.format(of=_quoted(of)) if of else "SELECT * FROM graph_links"
    session.run(f"CREATE OR REPLACE TEMP VIEW account_links AS {links}")
    prepare_traits(session, as_of=as_of, of=of)
    return layers


def prepare_messages(
    session: Session, typed: Collection[Typed] = (), *, of: str | None = None
) -> Sequence[Layer]:
    """`messages`, led to the profiles that they belong to now, and its layers."""
    session.view("events")
    rows = _led(session, "events", (), of=of)
    session.run(_MESSAGES.format(name="messages", rows=rows))
    return message_layers(session, typed, of=of)


def prepare_profiles(session: Session, *, of: str | None = None) -> None:
    """`profiles`, with what they are known by."""
    roots, identifiers = "graph_profiles", "graph_identifiers"
    if of:
        roots, identifiers = (text.format(of=_quoted(of)) for text in (_ROOTS_OF, _IDENTIFIERS_OF))
    session.run(_PROFILES.format(roots=roots, identifiers=identifiers))


def prepare_traits(
    session: Session, *, as_of: dt.datetime | None = None, of: str | None = None
) -> None:
    """`former_members` and `traits`, on top of `profiles`."""
    session.view("audience_changes")
    if of:
        session.run(_FORMER_OF.format(of=_quoted(of)))
    else:
        session.run(_FORMER, [as_of])
        session.run("CREATE OR REPLACE TEMP VIEW former_members AS FROM all_former_members")
    session.run(_TRAITS)


def message_layers(
    session: Session, typed: Collection[Typed], *, of: str | None = None
) -> Sequence[Layer]:
    """`messages_1`, `messages_2`, ...: together `messages`, each with typed columns of its own."""
    layers = []
    for number, (table, held) in enumerate(
        session.layers("events", [one.name for one in typed]), 1
    ):
        name = f"messages_{number}"
        session.run(_MESSAGES.format(name=name, rows=_led(session, table, held, of=of)))
        layers.append(Layer(name, held))
    return layers or MESSAGES


def _led(session: Session, table: str, held: Collection[str], *, of: str | None) -> str:
    """The messages of a table, led to their roots: of all profiles, or of those in `of`."""
    if of is None:
        return f"{_rows(table, held, **_roots(session, 'e'))} WHERE e.profile_id IS NOT NULL"
    found = (
        _rows(table, held, root="m.root_id", joined=joined.format(of=_quoted(of)))
        for joined in (_BY_HALVES, _BY_TEXT)
    )
    return " UNION ALL ".join(found)


def evaluate_everybody(session: Session, layers: Sequence[Layer], made: Plan) -> None:
    """Run a plan over all profiles (`query.evaluate`), in slices where messages are many."""
    messages = session.fetch("SELECT count(*) FROM events").column(0)[0].as_py()
    if messages <= MOST or not can_be_sliced(made):
        evaluate(session, made)
        return
    merged = bool(session.fetch(_ANY_MERGE).num_rows)
    read = {layer: ", ".join(map(_quoted, _read(session, layer, made))) for layer in layers}
    session.run("CREATE OR REPLACE TEMP TABLE all_profiles AS FROM profiles")
    for layer in layers if merged else ():
        rows = _rows(_events(layer), layer.held, root="m.parent_id", joined=_OF_PARENTS)
        strays = _quoted(_STRAYS + layer.relation)
        session.run(f"CREATE OR REPLACE TEMP TABLE {strays} AS SELECT {read[layer]} FROM ({rows})")
    try:
        evaluate_sliced(
            session,
            made,
            slices(messages, most=MOST),
            limited=["profiles", *(layer.relation for layer in layers)],
            limit=partial(_limit, session, read, merged),
        )
    finally:
        _limit_no_more(session, layers)


def _limit_no_more(session: Session, layers: Sequence[Layer]) -> None:
    """Profiles and messages of all again."""
    for layer in layers:
        for strays in (_STRAYS, _OWN_STRAYS):
            session.run(f"DROP TABLE IF EXISTS {_quoted(strays + layer.relation)}")
    session.run("DROP TABLE profiles")
    session.run("ALTER TABLE all_profiles RENAME TO profiles")
    for layer in layers:
        rows = _led(session, _events(layer), layer.held, of=None)
        session.run(_MESSAGES.format(name=_quoted(layer.relation), rows=rows))


def _limit(session: Session, read: Mapping[Layer, str], merged: bool, some: Slice) -> None:
    """Profiles and messages of a slice; `merged`: whether any profile has children."""
    session.run(_SLICED_PROFILES.format(some=some.of("profile_id")))
    if merged:
        session.run(_CHILDREN.format(some=some.of("child_id")))
    for layer, columns in read.items():
        joined = _NO_CHILDREN if merged else ""
        rows = _rows(_events(layer), layer.held, root="e.profile_id", joined=joined)
        rows = f"SELECT {columns} FROM ({rows} WHERE {some.of('e.profile_id')})"
        if merged:  # what was sent as somebody who was merged since may lie anywhere
            own, strays = (_quoted(of + layer.relation) for of in (_OWN_STRAYS, _STRAYS))
            session.run(
                f"CREATE OR REPLACE TEMP TABLE {own} AS "
                f"SELECT * FROM {strays} WHERE {some.of('profile_id')}"
            )
            rows += f" UNION ALL FROM {own}"
        session.run(f"CREATE OR REPLACE TEMP VIEW {_quoted(layer.relation)} AS {rows}")


def _rows(table: str, held: Collection[str], *, root: str, joined: str) -> str:
    typed = "".join(f", e.{_quoted(name)}" for name in sorted(held))
    return _ROWS.format(root=root, joined=joined, table=table, typed=typed)


def _events(layer: Layer) -> str:
    """The table that a layer's messages are in."""
    return _quoted(layer.relation.replace("messages", "events"))


def _read(session: Session, layer: Layer, made: Plan) -> Sequence[str]:
    """The columns of a layer that a plan reads."""
    columns = {one.name for _, query in made.statements for one in query.find_all(exp.Column)}
    there = session.fetch(f"DESCRIBE {_quoted(layer.relation)}").column("column_name")
    return [name for name in there.to_pylist() if name in columns]


def gather_messages(
    session: Session, layers: Sequence[Layer], made: Plan, *, of: str, late: Collection[str]
) -> None:
    """What a plan reads of the layers' messages, those of the profiles in `of`, read once: worth
    it where they are few.

    Columns in `late`, of those in `LATE`, are read of profiles that need them.
    """
    wanted = {layer: _read(session, layer, made) for layer in layers}
    named = sql.one_of("event", sorted(made.events)).sql(dialect="duckdb")
    for layer, columns in wanted.items():
        read = ", ".join(
            f"NULL::{LATE[name]} AS {name}" if name in late else _quoted(name) for name in columns
        )
        session.run(
            f"CREATE OR REPLACE TEMP TABLE {_gathered(layer)} AS "
            f"SELECT {read} FROM {_quoted(layer.relation)} WHERE {named}"
        )
    if any(name in late for columns in wanted.values() for name in columns):
        _settle(session, wanted, named, of=of)
    for layer in layers:
        relation = _quoted(layer.relation)
        session.run(f"CREATE OR REPLACE TEMP VIEW {relation} AS FROM {_gathered(layer)}")


def _settle(
    session: Session, wanted: Mapping[Layer, Sequence[str]], named: str, *, of: str
) -> None:
    """Read whole what was gathered of profiles with two messages of an event at one instant."""
    stamps = " UNION ALL ".join(
        f"SELECT event, profile_id, timestamp FROM {_gathered(layer)}" for layer in wanted
    )
    session.run(_TIED.format(stamps=stamps, of=_quoted(of)))
    if not session.fetch("SELECT 1 FROM tied LIMIT 1").num_rows:
        return
    for layer, columns in wanted.items():
        gathered, names = _gathered(layer), ", ".join(map(_quoted, columns))
        session.run(f"DELETE FROM {gathered} WHERE profile_id IN (SELECT root_id FROM tied)")
        rows = _led(session, _events(layer), layer.held, of="tied")
        session.run(f"INSERT INTO {gathered} SELECT {names} FROM ({rows}) WHERE {named}")


def _gathered(layer: Layer) -> str:
    return _quoted(f"gathered_{layer.relation}")


def _roots(session: Session, alias: str) -> dict[str, str]:
    """How the rows of `alias` are led to their roots."""
    if not session.fetch(_ANY_MERGE).num_rows:  # a join would make the planner expect no rows
        return {"root": f"{alias}.profile_id", "joined": ""}
    return {key: text.format(of=alias) for key, text in _ALL_ROOTS.items()}


def _quoted(name: str) -> str:
    return exp.to_identifier(name, quoted=True).sql(dialect="duckdb")
