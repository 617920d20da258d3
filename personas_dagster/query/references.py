"""Which definition reads which: resolution of trait(...) and the order of evaluation.

>>> first = Definition("spend", "trait", "users", "event('Order').sum(property('total'))")
>>> second = Definition("big", "audience", "users", "trait('spend') > 100")
>>> [[one.key for one in level] for level in order([second, first])]
[['spend'], ['big']]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from personas_dagster.errors import QueryError
from personas_dagster.query.definition import Definition
from personas_dagster.query.parser import parse
from personas_dagster.query.tree import Quantified, Query, Trait, children

Scope = Literal["users", "accounts"]
Known = Mapping[tuple[Scope, str], Definition]


def known(definitions: Sequence[Definition]) -> Known:
    """By collection and key."""
    return {(one.collection, one.key): one for one in definitions}


def resolve(scope: Scope, key: str, among: Known) -> Definition | None:
    """The definition that trait('key') means, if it means one; else a stored trait is read.

    A user's query reaches an account's audience by its key; account traits it does not reach.
    """
    own = among.get((scope, key))
    if own or scope == "accounts":
        return own
    account = among.get(("accounts", key))
    return account if account and account.kind == "audience" else None


def scoped_traits(node: object, scope: Scope) -> Iterator[tuple[Scope, Trait]]:
    """Each trait(...) below a node, with whose trait it is: inside ANY and ALL the user's."""
    if isinstance(node, Trait):
        yield scope, node
    for child in children(node):
        yield from scoped_traits(child, "users" if isinstance(node, Quantified) else scope)


def order(definitions: Sequence[Definition]) -> list[list[Definition]]:
    """Levels: each definition after all that it reads. A cycle is an error that names it."""
    queries = {(one.collection, one.key): parse(one.query) for one in definitions}
    return ordered(definitions, queries)


def ordered(
    definitions: Sequence[Definition], queries: Mapping[tuple[Scope, str], Query]
) -> list[list[Definition]]:
    """`order`, over queries that were parsed before."""
    among = known(definitions)
    depth: dict[tuple[Scope, str], int] = {}
    chain: list[tuple[Scope, str]] = []

    def visit(one: Definition, at: Trait | None) -> int:
        name = (one.collection, one.key)
        if name in chain:
            keys = [key for _, key in [*chain[chain.index(name) :], name]]
            raise QueryError(
                f"these definitions wait for each other: {' -> '.join(keys)}; remove one reference",
                line=at.at.line if at else 1,
                column=at.at.column if at else 1,
                found=one.key,
            )
        if name not in depth:
            chain.append(name)
            below = [-1]
            for scope, trait in scoped_traits(queries[name].body, one.collection):
                target = resolve(scope, trait.key, among)
                if target:
                    below.append(visit(target, trait))
            chain.pop()
            depth[name] = max(below) + 1
        return depth[name]

    for one in definitions:
        visit(one, None)
    levels: list[list[Definition]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for one in definitions:
        levels[depth[one.collection, one.key]].append(one)
    return levels
