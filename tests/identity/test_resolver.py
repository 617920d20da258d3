"""The loop itself, plain and compiled, against the sequential reading, on chance streams."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personas_dagster.identity import resolve as resolving
from personas_dagster.identity.numbering import NONE, Numbered
from personas_dagster.identity.resolve import Before, resolve, suspects
from personas_dagster.identity.rules import IdentityRules, TypeRule
from tests.examples import examples
from tests.identity.graph import START
from tests.identity.oracle import Oracle

KINDS = ("user_id", "email", "anonymous_id")
Ids = tuple[tuple[str, str], ...]

rule = st.builds(
    TypeRule,
    priority=st.sampled_from([1, 2, None]),
    limit=st.integers(1, 3),
    per=st.sampled_from(["ever", "ever", "day", "week"]),
)
rules = st.builds(
    IdentityRules,
    types=st.fixed_dictionaries({kind: rule for kind in KINDS}),
    max_merges=st.integers(1, 4),
    max_identifiers=st.integers(2, 8),
)
identifier = st.tuples(st.sampled_from(KINDS), st.sampled_from("abcd"))
messages = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 3600, 86_400, 3 * 86_400, 10 * 86_400]),
        st.lists(identifier, min_size=1, max_size=4, unique=True),
    ),
    max_size=14,
)


def numbered(streams: list[Ids], rules: IdentityRules) -> tuple[Numbered, list[int]]:
    """Distinct combinations, and which of them each message is."""
    names = sorted({i for ids in streams for i in ids})
    kinds = sorted({kind for kind, _ in names}, key=rules.rank)
    distinct = list(dict.fromkeys(streams))
    members = [names.index(i) for ids in distinct for i in ids]
    offsets = np.cumsum([0, *(len(ids) for ids in distinct)])
    none = np.empty(0, np.int32)
    made = Numbered(
        kinds,
        np.array([kinds.index(kind) for kind, _ in names], np.int32),
        pa.array([value for _, value in names], pa.string()),
        offsets,
        np.array(members, np.int32),
        none,
        none,
    )
    return made, [distinct.index(ids) for ids in streams]


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_any_stream(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "_WORTH_COMPILING", 0 if compiled else 1_000_000)

    @settings(max_examples=examples(200))
    @given(rules, messages)
    def holds(rules: IdentityRules, stream: list[tuple[int, list[Any]]]) -> None:
        oracle = Oracle(rules)
        at, instants, streams = START, [], []
        for number, (gap, ids) in enumerate(stream):
            at += dt.timedelta(seconds=gap)
            instants.append(round(at.timestamp()) * 1_000_000)
            streams.append(tuple(sorted(ids, key=lambda i: oracle.rank(i[0]))))
            found = {"messageId": f"{number:03}", "receivedAt": at}
            oracle.resolve("users", found, list(streams[-1]))
        if not stream:
            return
        made, order = numbered(streams, rules)
        before = Before(
            np.empty(0, np.int32),
            made.kind_of,
            np.full(made.size, NONE, np.int32),
            np.zeros(made.size, np.int64),
        )
        guarded = suspects(made, before, rules)
        outcome = resolve(made, before, rules, np.array(order), np.array(instants), guarded)
        names = [made.kinds[k] + ":" + v for k, v in zip(made.kind_of, made.values.to_pylist(),
                                                         strict=True)]  # fmt: skip
        number_of = {row[0]: place for place, row in enumerate(oracle.profiles)}
        attached = {
            f"{kind}:{value}": (number_of[profile], int(first))
            for _, kind, value, profile, _, first in oracle.identifiers
        }
        assert attached == {
            name: (int(outcome.attached[i]), int(outcome.place[i]))
            for i, name in enumerate(names)
            if outcome.attached[i] != NONE
        }
        assert outcome.created.tolist() == [int(row[3]) for row in oracle.profiles]
        assert outcome.merges.tolist() == [
            [number_of[parent], number_of[child], int(message), len(ids)]
            for _, parent, child, _, message, ids in oracle.merges
        ]
        ends = np.cumsum([len(row[-1]) for row in oracle.drops]).tolist()
        assert [[*row[:2], row[3]] for row in outcome.drops.tolist()] == [
            [int(row[0]), names.index(f"{row[3]}:{row[4]}"), end]
            for row, end in zip(oracle.drops, ends, strict=True)
        ]
        texts = resolving.broken_texts(made.kinds, rules)
        assert [texts[code] for code in outcome.drops[:, 2]] == [row[5] for row in oracle.drops]
        apart = [number_of[profile] for row in oracle.drops for profile in row[-1]]
        assert outcome.apart.tolist() == apart

    holds()


@pytest.mark.parametrize("size", [200_000])
def test_a_hub_and_a_chain_take_linear_time(size: int) -> None:
    """One shared id among many people, and a chain of identifiers, with every limit lifted."""
    lifted = {kind: TypeRule(None, 2 * size) for kind in KINDS}
    rules = IdentityRules(types=lifted, max_merges=2 * size, max_identifiers=2 * size)
    spots = np.arange(size)
    for left, right in ((spots + 1, np.zeros(size, int)), (spots, spots + 1)):
        made = Numbered(
            ["user_id"],
            np.zeros(size + 1, np.int32),
            pa.nulls(size + 1, pa.string()),
            np.arange(size + 1) * 2,
            np.stack([left, right], axis=1).ravel().astype(np.int32),
            np.empty(0, np.int32),
            np.empty(0, np.int32),
        )
        before = Before(
            np.empty(0, np.int32),
            made.kind_of,
            np.full(made.size, NONE, np.int32),
            np.zeros(made.size, np.int64),
        )
        guarded = suspects(made, before, rules)
        outcome = resolve(made, before, rules, spots, spots, guarded)
        assert len(outcome.created) == 1 and not outcome.drops.size
