"""Text to tree: `parse`.

The grammar (grammar.lark) knows shapes only; which names there are and what they take is decided
here, so that an error can say what was meant.

>>> parse("event('Order Completed').within(7 days).count() >= 1").type
'boolean'
>>> try:
...     parse("event('Order Completed').wihtin(7 days).count() >= 1")
... except QueryError as error:
...     error.line, error.column, error.suggestion
(1, 26, 'within')
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from personas_dagster.errors import QueryError
from personas_dagster.query import arguments, chains
from personas_dagster.query.arguments import Argument, AsType, Link
from personas_dagster.query.names import EXTRACTORS, SYMBOLS
from personas_dagster.query.suggestions import listed, nearest
from personas_dagster.query.tree import (
    And,
    Comparison,
    Condition,
    Not,
    Or,
    Place,
    Quantified,
    Query,
    Scalar,
)

_HUMAN = {
    "$END": "the end of the query",
    "NAME": f"a function ({', '.join(EXTRACTORS[:4])}, ...)",
    "NUMBER": "a number",
    "STRING": "a string",
    "DATE": "a date",
    "TIMESTAMP": "a timestamp",
    "BOOLEAN": "true or false",
    "OP": "a comparison (=, !=, >, >=, <, <=)",
    "QUANTIFIER": "ANY or ALL",
    "_AND": "AND",
    "_OR": "OR",
    "_NOT": "NOT",
    "_AS": "as",
    "_DOT": "`.`",
    "_COMMA": "`,`",
    "_COLON": "`:`",
    "_LPAR": "`(`",
    "_RPAR": "`)`",
    "_LBRACE": "`{`",
    "_RBRACE": "`}`",
    "_LSQB": "`[`",
    "_RSQB": "`]`",
}
_VALUES = {"NUMBER", "STRING", "DATE", "TIMESTAMP", "BOOLEAN"}


@lru_cache(maxsize=4096)
def parse(text: str) -> Query:
    """Read a query; a `QueryError` says where it stops making sense and what was expected."""
    try:
        tree = _grammar().parse(text)
    except UnexpectedInput as error:
        raise _syntax_error(error, text) from None
    return Query(chains.complete(_node(tree.children[0])))


@cache
def _grammar() -> Lark:
    source = files("personas_dagster.query").joinpath("grammar.lark").read_text("utf-8")
    return Lark(source, start="query", parser="lalr", propagate_positions=True)


def _node(tree: Any) -> Link:
    """A condition, a scalar, or a stream that still waits for its reducer."""
    at = _place(tree)
    children: list[Any] = tree.children
    match tree.data:
        case "or_expr":
            return Or(_flat(Or, children), at)
        case "and_expr":
            return And(_flat(And, children), at)
        case "not_expr":
            return Not(_condition(children[0]), at)
        case "quantified":
            quantifier = "ANY" if children[0].upper() == "ANY" else "ALL"
            return Quantified(quantifier, _condition(children[1]), at)  # type: ignore[arg-type]
        case "compared":
            left, symbol, right = children
            return Comparison(_scalar(left), SYMBOLS[symbol], (_scalar(right),), at)
        case "chain":
            return _chain(children)
        case "call":
            return chains.extract(children[0].lower(), _arguments(children[1:]), at)
        case "literal":
            return arguments.literal(children[0].type, str(children[0]), at)
        case "group":
            return _node(children[0])
        case "typed":
            raise QueryError(
                "`as` belongs behind the property inside min, max or mode",
                line=at.line,
                column=at.column,
                found="as",
            )
    raise AssertionError(f"no rule {tree.data}")


def _chain(parts: list[Any]) -> Link:
    value = _node(parts[0])
    for link in parts[1:]:
        name: Token = link.children[0]
        at = Place(name.line or 1, name.column or 1)
        value = chains.link(value, str(name), _arguments(link.children[1:]), at)
    return value


def _arguments(trees: list[Any]) -> list[Argument]:
    """The arguments in one list: braces and brackets only group."""
    if not trees or trees[0] is None:
        return []
    return [argument for tree in trees[0].children for argument in _argument(tree, None)]


def _argument(tree: Any, name: str | None, named_at: Place | None = None) -> list[Argument]:
    at = named_at or _place(tree)
    match tree.data:
        case "braces" | "brackets":
            inner = tree.children[0].children
            return [argument for one in inner for argument in _argument(one, name, named_at)]
        case "named":
            return _argument(tree.children[1], tree.children[0].lower(), at)
        case "duration":
            amount, unit = tree.children
            return [Argument(arguments.duration(str(amount), unit, at), at, name)]
        case "typed":
            value, type_name = tree.children
            as_type = AsType(str(type_name), Place(type_name.line, type_name.column))
            return [Argument(_node(value), at, name, as_type)]
    return [Argument(_node(tree), at, name)]


def _condition(tree: Tree[Token]) -> Condition:
    return chains.condition(_node(tree), _place(tree))


def _scalar(tree: Tree[Token]) -> Scalar:
    return chains.scalar(_node(tree), _place(tree))


def _flat(kind: type[And] | type[Or], trees: list[Any]) -> tuple[Condition, ...]:
    """The items of a junction; a junction of the same kind in parentheses is the same junction."""
    items: list[Condition] = []
    for tree in trees:
        item = _condition(tree)
        items.extend(item.items if isinstance(item, kind) else (item,))
    return tuple(items)


def _place(tree: Any) -> Place:
    return Place(getattr(tree.meta, "line", 1), getattr(tree.meta, "column", 1))


def _syntax_error(error: UnexpectedInput, text: str) -> QueryError:
    if isinstance(error, UnexpectedCharacters):
        if error.char in "'\"":
            message, expected = "this string is not closed", f"a closing {error.char}"
        else:
            names = error.allowed or set()
            message, expected = f"unexpected `{error.char}`", _expected(set(names))
            message = f"{message}, expected {expected}"
        return QueryError(
            message, line=error.line, column=error.column, found=error.char, expected=expected
        )
    assert isinstance(error, UnexpectedToken)
    token = error.token
    accepted = set(error.accepts or error.expected)
    unquoted = accepted <= {"_COLON", "_LPAR"}  # behind a bare name: event(Shoes Bought)
    expected = "a name or text in quotes" if unquoted else _expected(accepted)
    if token.type == "$END":
        lines = text.rstrip().split("\n")
        found, line, column = "end of the query", len(lines), len(lines[-1]) + 1
    else:
        found, line, column = str(token), token.line or 1, token.column or 1
    keywords = [_HUMAN[name] for name in accepted if name in ("_AND", "_OR", "_NOT", "_AS")]
    return QueryError(
        f"unexpected {found if token.type == '$END' else f'`{found}`'}, expected {expected}",
        line=line,
        column=column,
        found=found,
        expected=expected,
        suggestion=nearest(found, keywords) if token.type == "NAME" else None,
    )


def _expected(accepted: set[str]) -> str:
    """What could stand here, in words; a whole value is named once.

    >>> _expected({"NUMBER", "STRING", "DATE", "TIMESTAMP", "BOOLEAN", "_RPAR"})
    '`)` or a value'
    """
    names = [_HUMAN[name] for name in _HUMAN if name in accepted - _VALUES]
    if accepted >= _VALUES:
        names.append("a value")
    else:
        names += [_HUMAN[name] for name in _HUMAN if name in accepted & _VALUES]
    return listed(names or ["the end of the query"])
