"""Pass: where trait(...) is read from.

What belongs here: one narrow relation per origin (stored traits, the values of an earlier level,
audiences of a user's accounts), each keyed by profile, with one column per path that is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from sqlglot import exp

from personas_dagster.query import paths, sql
from personas_dagster.query.compile_conditions import Items
from personas_dagster.query.definition import Definition
from personas_dagster.query.paths import EACH
from personas_dagster.query.references import Known, Scope, resolve
from personas_dagster.query.sql import column
from personas_dagster.query.tree import Trait, segments
from personas_dagster.query.typed import items_of
from personas_dagster.query.values import Computed, Json, Value, canonical

LINKS = "query_links"


@dataclass
class References:
    """Hands out the value of a trait, and remembers which relations that needs."""

    among: Known
    audiences: Collection[str]
    origins: dict[str, dict[str, str]] = field(default_factory=dict)
    depth: dict[tuple[Scope, str], int] = field(default_factory=dict)
    # Traits of earlier levels: the tables that hold them, and their value over these.
    computed: dict[tuple[Scope, str], tuple[tuple[str, ...], Computed]] = field(
        default_factory=dict
    )

    def level(self, scope: Scope, key: str) -> int:
        """The first level at which this trait can be read."""
        target = resolve(scope, key, self.among)
        return self.depth[target.collection, target.key] + 1 if target else 0

    def value(self, scope: Scope, trait: Trait, used: dict[str, None]) -> Value | Items:
        own = self.computed.get((scope, trait.path))
        if own:
            tables, computed = own
            used |= dict.fromkeys(tables)
            return replace(computed, item=computed.item.copy())
        columns: list[exp.Expr] = []
        for table in self._tables(scope, trait.key):
            names = self.origins.setdefault(table, {})
            name = names.setdefault(trait.path, f"t{len(names)}")
            used[table] = None
            columns.append(column(name, table))
        item = columns[0] if len(columns) == 1 else sql.either(columns[0], columns[1])
        return Items(item) if EACH in segments(trait.path) else Json(item)

    def _tables(self, scope: Scope, key: str) -> list[str]:
        target = resolve(scope, key, self.among)
        if target is None:
            through = ["query_stored_of_accounts"] if self._may_be_of_accounts(scope, key) else []
            return [f"query_stored_{scope}", *through]
        level = self.depth[target.collection, target.key]
        if target.collection != scope:
            return [f"query_known_{level}_of_accounts"]
        return [f"query_known_{level}_{scope}"]

    def _may_be_of_accounts(self, scope: Scope, key: str) -> bool:
        return scope == "users" and key in self.audiences


def joins(used: Iterable[str], key: exp.Expr) -> list[exp.Join]:
    """LEFT JOINs of relations keyed by profile_id."""
    return [
        sql.join(
            sql.table(name),
            sql.compare("=", column("profile_id", name), key.copy()),
            left=True,
        )
        for name in used
    ]


def stored(scope: Scope, columns: dict[str, str]) -> exp.Select:
    """The stored traits that are read, one row per profile."""
    keys = sorted({segments(path)[0] for path in columns})
    named = [
        sql.named(walked(_of_key(segments(path)[0]), path), name) for path, name in columns.items()
    ]
    return sql.select(
        [column("profile_id"), *named],
        sql.table("traits"),
        where=sql.all_of([_is("collection", scope), sql.one_of("key", keys)]),
        group=[column("profile_id")],
    )


def stored_of_accounts(columns: dict[str, str]) -> exp.Select:
    """Stored memberships of accounts, as their users see them."""
    keys = sorted({segments(path)[0] for path in columns})
    return sql.select(
        [
            sql.named(column("user_profile_id", "l"), "profile_id"),
            *(
                sql.named(
                    _any_account(column("value", "t"), _is("key", segments(path)[0], "t")), name
                )
                for path, name in columns.items()
            ),
        ],
        sql.table("traits", "t"),
        joins=[_links(column("profile_id", "t"))],
        where=sql.all_of([_is("collection", "accounts", "t"), sql.one_of("key", keys, "t")]),
        group=[column("user_profile_id", "l")],
    )


def known(
    columns: dict[str, str], scope: Scope, values: dict[str, tuple[Definition, str, Computed]]
) -> exp.Select:
    """What an earlier level computed, as JSON. `values`: key to definition, table and value."""
    audiences = [key for key, (one, _, _) in values.items() if one.kind == "audience"]
    named, used = [], dict[str, None]()
    for path, name in columns.items():
        definition, table, value = values[segments(path)[0]]
        used[table] = None
        item = value.json()
        if definition.kind == "audience":
            item = _membership(
                value.item.copy(), column(f"f{audiences.index(definition.key)}", "f")
            )
        named.append(sql.named(walked(item, path), name))
    former = sql.join(
        sql.subquery(_former(audiences), "f"),
        sql.compare("=", column("profile_id", "f"), column("profile_id", "p")),
        left=True,
    )
    return sql.select(
        [column("profile_id", "p"), *named],
        sql.table("profiles", "p"),
        joins=[*joins(used, column("profile_id", "p")), *([former] if audiences else [])],
        where=_is("collection", scope, "p"),
    )


def known_of_accounts(columns: dict[str, str], states: exp.Select) -> exp.Select:
    """Memberships of accounts from an earlier level, as their users see them."""
    return sql.select(
        [
            sql.named(column("user_profile_id", "l"), "profile_id"),
            *(sql.named(_any_account(column(name, "t")), name) for name in columns.values()),
        ],
        sql.subquery(states, "t"),
        joins=[_links(column("profile_id", "t"))],
        group=[column("user_profile_id", "l")],
    )


def walked(document: exp.Expr, path: str) -> exp.Expr:
    """The canonical value (or list of values) at the rest of a path, below its key."""
    first, *parts = paths.split(segments(path))
    found = paths.one(document, first[1:])
    if parts:
        return items_of(found, parts)
    return canonical(paths.as_text(found))


def links() -> exp.Select:
    """Which user belongs to which account, each pair once."""
    names = [column("user_profile_id"), column("account_profile_id")]
    return sql.select(names, sql.table("account_links"), distinct=True)


def _of_key(key: str) -> exp.Expr:
    """The value of one key, written anew so that white space and numbers are canonical."""
    value = sql.where_only(sql.call("max", column("value")), _is("key", key))
    return sql.call("json_extract", value, sql.text("$"))


def _any_account(state: exp.Expr, only: exp.Expr | None = None) -> exp.Expr:
    """true when any account is a member, else false when any was, else absent."""

    def some(what: str) -> exp.Expr:
        found = sql.call("bool_or", sql.compare("=", state.copy(), sql.text(what)))
        return sql.where_only(found, only.copy()) if only is not None else found

    return sql.case((some("true"), sql.text("true")), (some("false"), sql.text("false")))


def _membership(member: exp.Expr, former: exp.Expr) -> exp.Expr:
    return sql.case((member, sql.text("true")), (former, sql.text("false")))


def _former(audiences: list[str]) -> exp.Select:
    return sql.select(
        [
            column("profile_id"),
            *(
                sql.named(sql.call("bool_or", _is("audience", key)), f"f{index}")
                for index, key in enumerate(audiences)
            ),
        ],
        sql.table("former_members"),
        where=sql.one_of("audience", audiences),
        group=[column("profile_id")],
    )


def _links(account: exp.Expr) -> exp.Join:
    return sql.join(
        sql.table(LINKS, "l"), sql.compare("=", column("account_profile_id", "l"), account)
    )


def _is(name: str, value: str, table: str | None = None) -> exp.Expr:
    return sql.compare("=", column(name, table), sql.text(value))
