"""CSV of an audience or a trait, as the last refresh published it; streamed, never held.

The engine lays out whole batches and Arrow writes them: no loop over rows anywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Literal

import pyarrow as pa
from sqlglot import exp

from personas_dagster.answers import layout
from personas_dagster.errors import PersonasError
from personas_dagster.interfaces import Session
from personas_dagster.spaces import Space
from personas_dagster.traits.world import prepare_values

Progress = Callable[[int], None]
Layout = Literal["unformatted", "formatted", "single"]
LAYOUTS: tuple[Layout, ...] = ("unformatted", "formatted", "single")
ROWS_A_SECOND = 200_000  # of the slowest layout on a slow machine: an estimate, not a promise

# The profiles of the export, each once, in the order of their ids, so that the same snapshot gives
# the same file.
_MEMBERS = """
CREATE OR REPLACE TEMP TABLE chosen AS
SELECT profile_id, NULL::VARCHAR AS value, row_number() OVER (ORDER BY profile_id) - 1 AS place
FROM members WHERE audience = $1
"""
# Of classes that share a key, the first counts, as in queries. A text is written as it is.
_TRAIT = """
CREATE OR REPLACE TEMP TABLE chosen AS
SELECT profile_id, CASE WHEN json_type(shown) = 'VARCHAR' THEN shown ->> '$' ELSE shown END
           AS value, row_number() OVER (ORDER BY profile_id) - 1 AS place
FROM (
    SELECT profile_id, shown_value(any_value(key), arg_min(value,
        CASE class WHEN 'computed_trait' THEN 0 WHEN 'sql_trait' THEN 1 ELSE 2 END)) AS shown
    FROM trait_values WHERE key = $1 GROUP BY profile_id
)
"""
_TYPES = "SELECT DISTINCT type FROM graph_identifiers ORDER BY type"
_IDENTIFIERS = """
CREATE OR REPLACE TEMP TABLE chosen_identifiers AS
SELECT c.place, list_position($1, i.type) - 1 AS kind, shown_id(i.type, i.value) AS value,
       epoch_us(i.first_seen_at) AS seen
FROM graph_identifiers i JOIN chosen c USING (profile_id)
"""
_COUNTED = """
SELECT place - $1 AS place, kind FROM chosen_identifiers WHERE place >= $1 AND place < $2
"""
_PROFILES = """
SELECT profile_id, value FROM chosen WHERE place >= $1 AND place < $2 ORDER BY place
"""
_SLICE = """
SELECT place - $1 AS place, kind, value, seen,
       NOT regexp_matches(value, '[",\\\\[:cntrl:]]') AS is_plain
FROM chosen_identifiers WHERE place >= $1 AND place < $2
"""
_AT_ONCE = 125_000  # profiles
_WORKERS = 2
# Normalised as the tools that take hashes want it: without white space around it, e-mails in
# small letters (as the graph keeps them), phones as digits with a leading plus.
_NORMAL = """
CASE WHEN type = 'email' THEN lower(trim(value))
     WHEN type LIKE '%phone%' THEN regexp_replace(value, '[^0-9+]', '', 'g')
     ELSE trim(value) END
"""
_SINGLE = """
SELECT {value} AS {name}
FROM graph_identifiers i
WHERE i.type = {type} AND i.profile_id IN (SELECT profile_id FROM chosen)
"""
_TYPES_ONLY = """
SELECT DISTINCT type FROM graph_identifiers
WHERE profile_id IN (SELECT profile_id FROM chosen) ORDER BY type
"""


@dataclass(frozen=True)
class Export:
    """What is written. `id_type` is the single column's; `raw` writes it without hashing."""

    key: str
    kind: Literal["audience", "trait"]
    layout: Layout = "unformatted"
    id_type: str | None = None
    raw: bool = False
    rows: bool = False


@dataclass(frozen=True)
class Written:
    """How many lines the file has besides its header, and of how many profiles."""

    rows: int
    profiles: int


def check(space: Space, chosen: Export) -> None:
    """PersonasError when it cannot be written, or must not be."""
    if chosen.kind == "audience" and chosen.key not in space.audience_keys:
        there = ", ".join(space.audience_keys) or "none is declared"
        raise PersonasError(f"no audience `{chosen.key}` in {space.name}; expected one of: {there}")
    if chosen.layout == "single" and not chosen.id_type:
        raise PersonasError("a single column needs a type; add --id-type, such as --id-type email")
    if chosen.layout != "single" and (chosen.id_type or chosen.raw):
        raise PersonasError("--id-type and --raw go with --format single only; leave them out")
    if chosen.rows and chosen.layout != "formatted":
        raise PersonasError("--rows goes with --format formatted only; leave it out")
    if chosen.raw and not space.operator_has_pii:
        raise PersonasError(
            f"raw identifiers need the permission `pii` in space {space.name}; leave --raw out "
            "(then hashes are written), or run `personas grant pii`"
        )


def write(
    space: Space,
    chosen: Export,
    out: Path,
    *,
    expected: Callable[[int, float], None] | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write the file; it appears whole or not at all.

    Without the permission `pii`, e-mails and phones are masked; hashes are written to anybody.

    `expected` is told how many profiles there are and how many seconds that may take, `progress`
    how many profiles (or lines, of a single column) are done. Later refreshes change nothing of
    what is being written.
    """
    check(space, chosen)
    with space.bare_session() as session:
        profiles = _choose(space, session, chosen)
        if expected:
            expected(profiles, profiles / ROWS_A_SECOND)
        if chosen.layout == "single":
            return Written(_single(session, chosen, out, progress), profiles)
        return Written(_laid_out(session, chosen, out, profiles, progress), profiles)


def _choose(space: Space, session: Session, chosen: Export) -> int:
    keys = [] if chosen.kind == "audience" else [chosen.key]
    prepare_values(session, defined=space.computed_keys, keys=keys)
    session.run(_MEMBERS if chosen.kind == "audience" else _TRAIT, [chosen.key])
    count: int = session.fetch("SELECT count(*) FROM chosen").column(0)[0].as_py()
    if not count and chosen.kind == "trait" and chosen.key not in space.computed_keys:
        raise PersonasError(
            f"no profile of space {space.name} has a trait `{chosen.key}`; check its name"
        )
    return count


def _laid_out(
    session: Session, chosen: Export, out: Path, profiles: int, progress: Progress | None
) -> int:
    types = session.fetch(_TYPES).column(0).to_pylist()
    session.run(_IDENTIFIERS, [types])
    columns, names = _columns(chosen, _most(session, types, profiles))
    rows, lock = 0, Lock()

    def text(first: int) -> pa.LargeStringArray:
        span = [first, first + _AT_ONCE]
        with lock:  # a session answers one question at a time
            people = session.fetch(_PROFILES, span)
            identifiers = session.fetch(_SLICE, span)
        return layout.lines(columns, people, identifiers)

    with _file(out) as file, ThreadPoolExecutor(_WORKERS) as workers:
        file.write(layout.header(names))
        starts = range(0, profiles, _AT_ONCE)
        coming = deque(workers.submit(text, first) for first in starts[:_WORKERS])
        for number, first in enumerate(starts):
            found = coming.popleft().result()
            coming.extend(
                workers.submit(text, later)
                for later in starts[number + _WORKERS : number + _WORKERS + 1]
            )
            file.write(layout.buffer(found))
            rows += len(found)
            if progress:
                progress(min(first + _AT_ONCE, profiles))
    return rows


def _most(session: Session, types: Sequence[str], profiles: int) -> dict[str, int]:
    """How many identifiers of each type a profile has at most."""
    most = [0] * len(types)
    for first in range(0, profiles, _AT_ONCE):
        found = session.fetch(_COUNTED, [first, first + _AT_ONCE])
        counted = layout.most_of_each(len(types), found).tolist() if types else []
        most = [max(pair) for pair in zip(most, counted, strict=True)]
    return dict(zip(types, most, strict=True))


def _columns(chosen: Export, most: Mapping[str, int]) -> tuple[layout.Columns, list[str]]:
    """The columns and their names. Types in the order of their usual priority."""
    types = sorted(most)
    with_value = chosen.kind == "trait"
    names = ["key", *(["value"] if with_value else []), "external_ids"]
    pairs: list[tuple[int, int]] = []
    if chosen.layout == "formatted":
        taken = {*names, *types}
        for kind in sorted(types, key=_order):
            for nth in range(min(1, most[kind]) if chosen.rows else most[kind]):
                pairs.append((types.index(kind), nth))
                names.append(_numbered(kind, nth, taken))
    return layout.Columns(types, with_value, pairs, repeat=chosen.rows), names


def _order(kind: str) -> tuple[int, str]:
    return {"user_id": 0, "email": 1}.get(kind, 2), kind


def _numbered(kind: str, nth: int, taken: set[str]) -> str:
    """`email`, `email_1`, `email_2`; one more _ where a type of that name exists."""
    name = f"{kind}_{nth}" if nth else kind
    while nth and name in taken:
        name = f"{name}_"
    return name


def _single(session: Session, chosen: Export, out: Path, progress: Progress | None) -> int:
    there: Sequence[str] = session.fetch(_TYPES_ONLY).column(0).to_pylist()
    kind = chosen.id_type or ""
    if there and kind not in there:
        raise PersonasError(
            f"nobody in `{chosen.key}` has an identifier of type `{kind}`; "
            f"there are: {', '.join(there)}"
        )
    value = _NORMAL if chosen.raw else f"sha256({_NORMAL})"
    query = _SINGLE.format(
        value=value,
        name=exp.to_identifier(kind, quoted=True).sql(dialect="duckdb"),
        type=exp.Literal.string(kind).sql(dialect="duckdb"),
    )
    rows = 0
    with _file(out) as file:
        file.write(layout.header([kind]))
        for batch in session.stream(query):
            text = layout.one_column(batch.column(0))
            file.write(layout.buffer(text))
            rows += len(text)
            if progress:
                progress(rows)
    return rows


@contextmanager
def _file(out: Path) -> Iterator[BinaryIO]:
    """A file that appears whole or not at all."""
    partial = out.with_name(out.name + ".part")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(out)
    except OSError as error:
        raise PersonasError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
