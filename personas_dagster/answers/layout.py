"""Profiles and their identifiers as lines of CSV, in Arrow: no loop over rows.

The engine's own lists and JSON of millions of small groups take five times as long as counting
where each group begins, which is all that is done here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
_NEEDS_QUOTES = '[",\r\n]'
_TEXT = pa.large_string()
_EMPTY = pa.scalar("", _TEXT)
_BREAK = pa.scalar("\n", _TEXT)


@dataclass(frozen=True)
class Columns:
    """What stands beside the profile's id: its value if `with_value`, its identifiers as JSON,
    and one column per pair of `pairs`: the type's number, and which of its values.

    `repeat`: values of one type get lines of their own; then each pair's second is 0.
    """

    types: Sequence[str]
    with_value: bool
    pairs: Sequence[tuple[int, int]] = ()
    repeat: bool = False


def lines(columns: Columns, profiles: pa.Table, identifiers: pa.Table) -> pa.LargeStringArray:
    """A line for each profile (or several, with `repeat`), each with its line break.

    `profiles` has (profile_id, value); `identifiers` has (place: the profile's row, kind: the
    number of the type, value, is_plain: whether the value is the same in JSON and CSV, seen: when,
    in microseconds).
    """
    count, kinds = profiles.num_rows, len(columns.types)
    kind = _ints(identifiers, "kind")
    group = _ints(identifiers, "place") * max(kinds, 1) + kind
    sizes = np.bincount(group, minlength=count * kinds)
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64)
    order = pa.array(_in_order(group, sizes, starts, identifiers))
    sizes, starts = sizes.reshape(count, kinds), starts.reshape(count, kinds)
    rows, nth = np.arange(count), np.zeros(count, np.int64)
    if columns.repeat and kinds:
        most = np.maximum(sizes.max(axis=1), 1)
        rows = np.repeat(rows, most)
        nth = np.arange(len(rows)) - np.repeat(np.cumsum(most) - most, most)
    values = _texts(identifiers, "value").take(order)
    is_plain = pc.all(identifiers.column("is_plain"), min_count=0).as_py()
    parts = [_texts(profiles, "profile_id")]
    if columns.with_value:
        parts.append(_quoted(_texts(profiles, "value")))
    parts.append(_json(columns.types, kind[order.to_numpy()], values, sizes, is_plain))
    if columns.repeat:
        parts = [part.take(pa.array(rows)) for part in parts]
    quoted = values if is_plain else _quoted(values)
    for number, offset in columns.pairs:
        there = sizes[rows, number] > offset + nth
        spots = pa.array(starts[rows, number] + offset + nth, mask=~there)
        parts.append(quoted.take(spots))
    parts[-1] = pc.binary_join_element_wise(
        parts[-1], _BREAK, _EMPTY, null_handling="replace", null_replacement=""
    )
    return pc.binary_join_element_wise(
        *parts, pa.scalar(",", _TEXT), null_handling="replace", null_replacement=""
    )


def most_of_each(kinds: int, identifiers: pa.Table) -> Ints:
    """Of each type, how many identifiers the profile has that has most. (place, kind) as above."""
    group = _ints(identifiers, "place") * kinds + _ints(identifiers, "kind")
    sizes = np.bincount(group, minlength=kinds)
    sizes = np.concatenate([sizes, np.zeros(-len(sizes) % kinds, np.int64)])
    found: Ints = sizes.reshape(-1, kinds).max(axis=0)
    return found


def _ints(table: pa.Table, name: str) -> Ints:
    found: Ints = table.column(name).to_numpy().astype(np.int64, copy=False)
    return found


def _texts(table: pa.Table, name: str) -> Any:
    return table.column(name).combine_chunks().cast(_TEXT)


def _in_order(group: Ints, sizes: Ints, starts: Ints, identifiers: pa.Table) -> Ints:
    """Rows by group; within one by when it was seen, then by value. Only those are sorted that
    are not alone in their group."""
    order = np.empty(len(group), np.int64)
    order[starts[group]] = np.arange(len(group))
    some = np.flatnonzero(sizes[group] > 1)
    if not len(some):
        return order
    seen = _ints(identifiers, "seen")
    some = some[np.lexsort((seen[some], group[some]))]
    tied = (group[some[1:]] == group[some[:-1]]) & (seen[some[1:]] == seen[some[:-1]])
    if tied.any():
        ends = np.concatenate([tied, [False]]) | np.concatenate([[False], tied])
        rows = some[ends]
        names = _texts(identifiers, "value").take(pa.array(rows))
        table = pa.table({"group": group[rows], "seen": seen[rows], "value": names, "row": rows})
        by = [("group", "ascending"), ("seen", "ascending"), ("value", "ascending")]
        some[ends] = table.sort_by(by).column("row").to_numpy()
    sorted_groups = group[some]
    is_first = np.concatenate([[True], sorted_groups[1:] != sorted_groups[:-1]])
    run = np.flatnonzero(is_first)
    within = np.arange(len(some)) - np.repeat(run, np.diff(np.append(run, len(some))))
    order[starts[sorted_groups] + within] = some
    return order


def _json(
    types: Sequence[str], kind: Ints, values: Any, sizes: npt.NDArray[Any], is_plain: bool
) -> Any:
    """All identifiers of each profile as one JSON text, already quoted for CSV.

    The elements lie in the profiles' order, so a profile's text is a span of their buffer.
    """
    of_profile = sizes.sum(axis=1).astype(np.int64)
    ends = np.concatenate([[0], np.cumsum(of_profile)]).astype(np.int64)
    some = of_profile > 0
    begin = np.full(len(kind), len(types), np.int64)
    begin[ends[:-1][some]] = 0
    closes = np.zeros(len(kind), np.int64)
    closes[ends[1:][some] - 1] = 1
    begins = [_doubled('{"type":' + json.dumps(one) + ',"id":"') for one in types]
    elements = pc.binary_join_element_wise(
        _pick(['"[' + one for one in begins] + ["," + one for one in begins], kind + begin),
        values if is_plain else _escaped(values),
        _pick([_doubled('"}'), _doubled('"}') + ']"'], closes),
        _EMPTY,
    )
    _, offsets, data = elements.buffers()
    spans = np.frombuffer(offsets, np.int64)[ends]
    texts = pa.LargeStringArray.from_buffers(len(some), pa.py_buffer(spans.tobytes()), data)
    return texts if some.all() else pc.if_else(pa.array(some), texts, pa.scalar('"[]"', _TEXT))


def _escaped(values: Any) -> Any:
    """Values as they stand inside a JSON text inside a quoted CSV field."""
    escaped = [_doubled(json.dumps(one, ensure_ascii=False)[1:-1]) for one in values.to_pylist()]
    return pa.array(escaped, _TEXT)


def _pick(choices: Sequence[str], which: Ints) -> Any:
    return pa.array(list(choices), _TEXT).take(pa.array(which))


def _doubled(text: str) -> str:
    return text.replace('"', '""')


def _quoted(values: Any) -> Any:
    """Values as CSV has them: in quotes where they hold a comma, a quote or a line break."""
    needs = pc.match_substring_regex(values, _NEEDS_QUOTES)
    if not pc.any(needs).as_py():
        return values
    quote = pa.scalar('"', _TEXT)
    inside = pc.replace_substring(values, '"', '""')
    return pc.if_else(needs, pc.binary_join_element_wise(quote, inside, quote, _EMPTY), values)


def one_column(values: pa.Array) -> pa.LargeStringArray:
    """A line for each value."""
    return pc.binary_join_element_wise(_quoted(values.cast(_TEXT)), _BREAK, _EMPTY)


def header(names: Sequence[str]) -> bytes:
    """The first line."""
    found = _quoted(pa.array(list(names), _TEXT)).to_pylist()
    return (",".join(found) + "\n").encode()


def buffer(text: pa.LargeStringArray) -> memoryview:
    """The texts on end, without a copy."""
    _, offsets, data = text.buffers()
    places = np.frombuffer(offsets, np.int64)
    return memoryview(data)[places[text.offset] : places[text.offset + len(text)]]
