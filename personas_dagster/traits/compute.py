"""Computed traits and audiences of a refresh: one plan, one snapshot, one `as_of`.

Evaluates definitions together, appends what changed to `computed_traits`, `audience_changes` and
`audience_memberships`. Values that stand since an earlier refresh are computed again only for
profiles that something touched (`standing`), and for a sample of the others, to show that it is so.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlglot import exp

from personas_dagster.audiences import membership
from personas_dagster.audiences.membership import Movement
from personas_dagster.interfaces import Lake, Session
from personas_dagster.query import Definition, evaluate, plan, sql, typed_columns
from personas_dagster.query.timing import upstream
from personas_dagster.traits import changes, slices
from personas_dagster.traits.comparing import compare_touched
from personas_dagster.traits.standing import (
    SAMPLE,
    Check,
    Standing,
    divide,
    record_of,
    scalar,
    touch,
)
from personas_dagster.traits.world import (
    LATE,
    evaluate_everybody,
    gather_messages,
    prepare_values,
    prepare_world,
)

_PAIRS = 64_000_000  # audiences, or traits, times profiles that are looked at together
_VALUES = 100_000_000  # traits times profiles that are compared at once: slices of the profiles
_BEFORE = """
CREATE OR REPLACE TEMP TABLE trait_before AS
SELECT collection, profile_id, key, value, NULL::VARCHAR AS source_id
FROM current_computed_traits WHERE {keys} AND {some}
"""
_MEMBERS_THEN = """
SELECT audience AS key, count(*) AS n FROM (
    SELECT audience FROM members_before WHERE profile_id NOT IN (SELECT number FROM moved)
    UNION ALL
    SELECT audience FROM (
        SELECT DISTINCT m.audience, t.root_id
        FROM stored_members m JOIN roots_then t ON t.profile_id = m.stored_id
        WHERE m.profile_id IN (SELECT number FROM moved)
    )
) GROUP BY audience
"""
_WRONG = """
SELECT key, profile_id FROM trait_changes SEMI JOIN checked USING (profile_id) WHERE {traits}
UNION ALL
SELECT audience, profile_id FROM member_changes SEMI JOIN checked USING (profile_id)
WHERE {audiences}
ORDER BY ALL
"""
# Numbers in ten steps between the 5th and the 95th percentile, other values by frequency; each
# value is looked at once, with how many profiles have it.
_DISTRIBUTION = """
WITH valued AS MATERIALIZED (
    SELECT key, value, count(*) AS profiles, TRY_CAST(value AS DOUBLE) AS number
    FROM {values} WHERE {keys} GROUP BY key, value
),
ranked AS (
    SELECT key, number, sum(profiles) OVER (PARTITION BY key ORDER BY number) AS upto,
           sum(profiles) OVER (PARTITION BY key) AS of_all
    FROM valued WHERE number IS NOT NULL
),
spans AS (
    SELECT key, min(number) FILTER (upto >= 0.05 * of_all) AS low,
           min(number) FILTER (upto >= 0.95 * of_all) AS high,
           count(DISTINCT number) AS distinct_numbers
    FROM ranked GROUP BY key
),
steps AS (
    SELECT v.key, v.profiles, v.number,
           CASE WHEN v.number IS NULL THEN left(v.value, 40)
                WHEN s.distinct_numbers <= 12 OR s.high <= s.low THEN v.number::VARCHAR
                ELSE printf('%.2f and more', s.low + (s.high - s.low) / 10
                     * greatest(0, least(9, floor(10 * (v.number - s.low) / (s.high - s.low)))))
           END AS step
    FROM valued v LEFT JOIN spans s USING (key)
)
SELECT key, step, sum(profiles)::BIGINT AS profiles FROM steps
GROUP BY key, step
QUALIFY row_number() OVER (PARTITION BY key ORDER BY sum(profiles) DESC, step) <= 12
ORDER BY key, min(number) NULLS LAST, profiles DESC, step
"""


@dataclass(frozen=True)
class Computed:
    """What one evaluation changed, in profiles, per trait and per audience.

    `touched` is how many profiles were computed again, None for all; `distributions` are of those.
    `record` is kept with the refresh: the next one builds on it.
    """

    traits_changed: Mapping[str, int]
    traits_held: Mapping[str, int]
    distributions: Mapping[str, Sequence[Mapping[str, Any]]]
    movements: Mapping[str, Movement]
    touched: int | None = None
    check: Check | None = None
    record: Mapping[str, Any] | None = None


@dataclass
class _Found:
    """Counts that the passes gather: profiles with a value, members, spread of values."""

    held: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    distributions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pass:
    """One evaluation: of everybody, or of the profiles in `touched`, on top of `base`."""

    session: Session
    as_of: dt.datetime
    refresh_id: int
    run_id: str
    audiences: Collection[str]
    defined: Collection[str]
    found: _Found
    base: Standing | None = None

    def evaluate(self, definitions: Sequence[Definition], among: Sequence[Definition]) -> None:
        """Compute `definitions` and what they read `among` all."""
        of = "by_number" if self.base else None
        wanted = upstream(definitions, among)
        prepare_values(self.session, defined=self.defined, of=of)
        typed = typed_columns(tuple(wanted))
        layers = prepare_world(self.session, typed=typed, of=of)
        made = plan(wanted, as_of=self.as_of, audiences=self.audiences, layers=layers)
        if self.base:
            gather_messages(self.session, layers, made, of="by_number", late=_late(wanted))
            evaluate(self.session, made)
        else:
            evaluate_everybody(self.session, layers, made)

    def audiences_of(self, definitions: Sequence[Definition]) -> None:
        """Record the members who came and went."""
        audiences = _audiences(definitions)
        for keys in self._batches(audiences):
            self._audiences(keys)

    def traits_of(self, definitions: Sequence[Definition]) -> Iterator[None]:
        """Leave changed values in `trait_changes`: those of a slice of the profiles a step."""
        keys = _traits(definitions)
        if not keys:
            return
        self._spread("results", keys)
        held: Counter[str] = Counter()
        values = len(keys) * scalar(self.session, "SELECT count(*) FROM profiles")
        for some in slices.conditions(values, most=_VALUES):
            changes.no_changes(self.session)
            held.update(self._compared(keys, some))
            yield
        self.found.held |= held

    def touched_traits(self, base: Standing, definitions: Sequence[Definition]) -> None:
        """Add changed values to `trait_changes`, where only touched profiles were computed."""
        keys = _traits(definitions)
        if not keys:
            return
        then, now = compare_touched(self.session, keys, at=self.as_of, refresh_id=self.refresh_id)
        self._since(self.found.held, base, keys, then, now)
        self._spread("trait_now", keys)

    def _compared(self, keys: list[str], some: str) -> dict[str, int]:
        """Add to `trait_changes`; returns how many profiles have a value now."""
        self.session.run(_values(keys, self.as_of, some))
        self.session.run(_BEFORE.format(keys=_among("key", keys), some=some))
        changes.compare(
            self.session,
            now_values="trait_now",
            before="trait_before",
            at=self.as_of,
            refresh_id=self.refresh_id,
        )
        return _counts(self.session, "SELECT key, count(*) AS n FROM trait_now GROUP BY key")

    def _batches(self, keys: list[str]) -> Iterator[list[str]]:
        """As many at once as their profiles allow: each batch reads all that is stored."""
        size = len(keys)
        if not self.base:
            size = _PAIRS // max(1, scalar(self.session, "SELECT count(*) FROM profiles"))
        for start in range(0, len(keys), max(1, size)):
            yield keys[start : start + max(1, size)]

    def _spread(self, values: str, traits: list[str]) -> None:
        for keys in self._batches(traits):
            query = _DISTRIBUTION.format(values=values, keys=_among("key", keys))
            for row in self.session.fetch(query).to_pylist():
                self.found.distributions.setdefault(row.pop("key"), []).append(row)

    def _audiences(self, keys: list[str]) -> None:
        sizes = membership.compare(
            self.session,
            keys,
            as_of=self.as_of,
            refresh_id=self.refresh_id,
            run_id=self.run_id,
            numbers="touched_ids" if self.base else None,
        )
        if self.base:
            before = _counts(self.session, _MEMBERS_THEN)
            self._since(self.found.sizes, self.base, keys, before, sizes)
        else:
            self.found.sizes |= {key: sizes.get(key, 0) for key in keys}

    @staticmethod
    def _since(
        into: dict[str, int],
        base: Standing,
        keys: Collection[str],
        before: Mapping[str, int],
        now: Mapping[str, int],
    ) -> None:
        """All profiles' counts, from those at `base` and the touched ones' then and now."""
        for key in keys:
            into[key] = base.held.get(key, 0) - before.get(key, 0) + now.get(key, 0)


def compute(
    session: Session,
    lake: Lake,
    definitions: Sequence[Definition],
    *,
    as_of: dt.datetime,
    refresh_id: int,
    run_id: str,
    audiences: Collection[str] = (),
    defined: Collection[str] = (),
    stands: Sequence[Standing] = (),
    sample: int = SAMPLE,
) -> Computed:
    """Evaluate `definitions` and record what changed.

    `audiences` and `defined` are all audiences and computed traits of the space, also those that
    are not evaluated now; `stands` the refreshes to build on, the newest first. `sample` profiles
    that nothing touched are computed too, and what is stored of them compared.

    The session must have the graph's relations.
    """
    changes.no_changes(session)
    membership.no_changes(session)
    found = _Found()
    base, kept = divide(definitions, stands, audiences)
    touched = None
    if base and kept:
        touched = touch(
            session, lake, base, kept, as_of=as_of, refresh_id=refresh_id, sample=sample
        )
    shared = (session, as_of, refresh_id, run_id, audiences, defined, found)
    check = None
    if touched is None or base is None:
        kept = []
    else:
        some = _Pass(*shared, base)
        some.evaluate(kept, definitions)
        some.touched_traits(base, kept)
        some.audiences_of(kept)
        check = _check(session, kept)
    standing = {one.key for one in kept}
    anew = [one for one in definitions if one.key not in standing]
    everybody = _Pass(*shared)
    if anew:
        everybody.evaluate(anew, definitions)
        everybody.audiences_of(anew)
    changed = changes.append(
        session,
        lake,
        "computed_traits",
        refresh_id=refresh_id,
        slices=everybody.traits_of(anew),
    )
    movements = membership.append(session, lake, found.sizes, refresh_id=refresh_id)
    if movements:
        prepare_values(session, defined=defined)
        membership.tidy(session, lake, members=sum(found.sizes.values()), refresh_id=refresh_id)
    return Computed(
        traits_changed={key: changed.get(key, 0) for key in _traits(definitions)},
        traits_held={key: held for key in _traits(definitions) if (held := found.held.get(key))},
        distributions=found.distributions,
        movements=movements,
        touched=touched,
        check=check,
        record=None if check and check.wrong else record_of(session, definitions, audiences),
    )


def _late(definitions: Sequence[Definition]) -> Collection[str]:
    """The columns that nothing but the order of a profile's own messages hangs on."""
    if any(one.collection == "accounts" for one in definitions):  # those of all of its users
        return ()
    received = {"received_at"} if any(one.received_after for one in definitions) else set()
    return LATE.keys() - received


def _check(session: Session, definitions: Sequence[Definition]) -> Check:
    """What changed on profiles of the sample, where nothing should have."""
    query = _WRONG.format(
        traits=_among("key", _traits(definitions)),
        audiences=_among("audience", _audiences(definitions)),
    )
    wrong = [(row["key"], row["profile_id"]) for row in session.fetch(query).to_pylist()]
    return Check(scalar(session, "SELECT count(*) FROM checked"), wrong)


def _traits(definitions: Sequence[Definition]) -> list[str]:
    return [one.key for one in definitions if one.kind == "trait"]


def _audiences(definitions: Sequence[Definition]) -> list[str]:
    return [one.key for one in definitions if one.kind == "audience"]


def _values(keys: Sequence[str], as_of: dt.datetime, some: str) -> exp.Expr:
    """`trait_now`: the results of some traits and profiles, as rows of the log."""
    columns = [
        *(sql.column(name) for name in ("collection", "profile_id", "key", "value")),
        sql.named(sql.instant(as_of), "updated_at"),
        sql.named(sql.cast(sql.NULL(), "VARCHAR"), "source_id"),
    ]
    where = sql.all_of([sql.one_of("key", keys), exp.condition(some, dialect="duckdb")])
    query = sql.select(columns, sql.table("results"), where=where)
    return exp.Create(
        this=sql.table("trait_now"),
        kind="TABLE",
        replace=True,
        properties=exp.Properties(expressions=[exp.TemporaryProperty()]),
        expression=query,
    )


def _among(name: str, values: Sequence[str]) -> str:
    return sql.one_of(name, values).sql(dialect="duckdb")


def _counts(session: Session, query: exp.Expr | str) -> dict[str, int]:
    return {row["key"]: row["n"] for row in session.fetch(query).to_pylist()}
