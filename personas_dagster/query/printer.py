"""Tree to text: `unparse`, so that parse(unparse(tree)) == tree.

>>> from personas_dagster.query.parser import parse
>>> unparse(parse("event('X').where({ property('a')>=1.50 }).count().at_least( 1 )"))
"event('X').where(property('a') >= 1.5).count() >= 1"
"""

from __future__ import annotations

from personas_dagster.query.names import SYMBOLS
from personas_dagster.query.tree import (
    And,
    Between,
    Comparison,
    Condition,
    Duration,
    Field,
    Filter,
    Literal,
    Not,
    Or,
    Quantified,
    Query,
    Reduction,
    Scalar,
    Sources,
    Stream,
    Trait,
    Where,
    Within,
)

_SYMBOL_OF = {name: symbol for symbol, name in SYMBOLS.items() if symbol != "=="}


def unparse(query: Query) -> str:
    """The query in the language's own words, on one line."""
    if isinstance(query.body, Condition):
        return condition(query.body)
    return scalar(query.body)


def condition(node: Condition) -> str:
    match node:
        case Or(items):
            return " OR ".join(condition(item) for item in items)
        case And(items):
            return " AND ".join(_tight(item, Or) for item in items)
        case Not(item):
            return f"NOT {_tight(item, (And, Or))}"
        case Quantified(quantifier, item):
            return f"{quantifier} {_tight(item, (And, Or))}"
        case Comparison():
            return _comparison(node)


def scalar(node: Scalar) -> str:
    match node:
        case Literal(kind, text):
            return quoted(text) if kind == "string" else text
        case Trait(path):
            return f"trait({quoted(path)})"
        case Field():
            return _field(node)
        case Reduction():
            return _reduction(node)


def stream(node: Stream) -> str:
    filters = "".join(f".{filter_text(one)}" for one in node.filters)
    return f"event({quoted(node.event)}){filters}"


def _tight(node: Condition, loose: type | tuple[type, ...]) -> str:
    text = condition(node)
    return f"({text})" if isinstance(node, loose) else text


def _comparison(node: Comparison) -> str:
    left = scalar(node.left)
    if node.name in _SYMBOL_OF:
        right = node.arguments[0]
        assert not isinstance(right, Duration)
        return f"{left} {_SYMBOL_OF[node.name]} {scalar(right)}"
    arguments = ", ".join(
        _duration(one) if isinstance(one, Duration) else scalar(one) for one in node.arguments
    )
    return f"{left}.{node.name}({arguments})"


def _field(node: Field) -> str:
    return f"{node.kind}({'parent: ' if node.parent else ''}{quoted(node.path)})"


def _reduction(node: Reduction) -> str:
    source = stream(node.stream)
    if node.field is None:
        return f"{source}.{node.name}()"
    argument = _field(node.field) + (f" as {node.as_type}" if node.as_type else "")
    if node.name == "mode":
        argument += f", {node.at_least}"
    if node.name == "unique_count":
        return f"{source}.unique({argument}).count()"
    return f"{source}.{node.name}({argument})"


def filter_text(node: Filter) -> str:
    match node:
        case Where(inner):
            return f"where({condition(inner)})"
        case Sources(exclude):
            return f"sources({{exclude: [{', '.join(quoted(one) for one in exclude)}]}})"
        case Between(near, far, parent):
            return f"between({_parent(parent)}{_duration(near)}, {_duration(far)})"
        case Within(duration, parent):
            return f"within({_parent(parent)}{_duration(duration)})"
        case _:
            return f"expires_after({_parent(node.parent)}{_duration(node.duration)})"


def _parent(parent: bool) -> str:
    return "parent: " if parent else ""


def _duration(node: Duration) -> str:
    return f"{node.amount} {node.unit}{'' if node.amount == 1 else 's'}"


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
