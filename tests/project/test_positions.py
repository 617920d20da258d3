"""Where in a YAML file something stands, whatever the style it is written in."""

from pathlib import Path

import pytest

from personas_dagster.errors import DefinitionError
from personas_dagster.project.lines import Document, parse

STYLES = {
    "plain": "q: one two\n   three  four",
    "single quoted": "q: 'it''s one\n\n  two three four'",
    "double quoted": 'q: "\\"é\\" \\t one \\\n  two\\x20three four"',
    "literal": "q: |\n\n  one\n    two three\n\n  four",
    "folded": "q: >-\n  one\n  two\n\n    three\n  four",
    "indented literal": "q: |2\n    one\n  two three four",
    "in a list": "a: [x, {q: 'one two three four'}]",
    "after other characters": "é: ü 𝒳 # ß\nq: one two three four",
}


def positions(document: Document, loc: tuple[str | int, ...], value: str) -> dict[str, int]:
    """For each word, what stands where the document says that it stands."""
    found = {}
    for row, line in enumerate(value.split("\n"), start=1):
        for word in line.split():
            found[word] = document.inside(loc, row, line.index(word) + 1)
    return found


@pytest.mark.parametrize("style", STYLES)
def test_words_of_a_text(style: str) -> None:
    text = "# a comment\n" + STYLES[style]
    document = parse(Path("x.yaml"), text)
    loc = ("a", 1, "q") if style == "in a list" else ("q",)
    value = document.data["a"][1]["q"] if style == "in a list" else document.data["q"]
    lines = text.split("\n")
    found = positions(document, loc, value)
    for word in ("one", "two", "three", "four"):
        line, column = found[word]
        assert lines[line - 1][column - 1 :].startswith(word), (word, line, column)


def test_end_of_a_text() -> None:
    document = parse(Path("x.yaml"), "q: |\n  one\n  two\n")
    assert document.inside(("q",), 2, 4) == (3, 6)
    assert document.inside(("q",), 3, 1) == (3, 7)  # behind the last line break


def test_text_that_starts_within_a_file() -> None:
    document = parse(Path("x.sql"), " a: 1\n b: 2", first_line=3, first_column=3)
    assert (document.at(("a",)), document.at(("b",))) == ((3, 4), (4, 2))


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", (3, 2), "expected YAML"),
        ("a: 1\n\tb: 2\n", (2, 1), "a tab character"),
        ("a: 1\nb: 2\na: 3\n", (3, 1), "found twice (first in line 1)"),
        ("a:\n  b: 1\n  b: 2\n", (3, 3), "found twice"),
        ("a: 2024-13-45\n", (1, 4), "month must be in 1..12"),
        ("a: 1\nb: \x07\n", (2, 4), "character 0x07"),
        ("a: !!python/object:os.system x\n", (1, 4), "could not determine a constructor"),
        ("a: *b\n", (1, 4), "undefined alias"),
        ("{a: 1}: 2\n", (1, 1), "unhashable key"),
        ("a: 1\n---\na: 2\n", (2, 1), "another document"),
    ],
)
def test_syntax(text: str, place: tuple[int, int], reason: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(Path("x.yaml"), text)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == place, problem
    assert reason in problem.message
    assert problem.message.startswith("found ")


def test_all_keys_that_stand_twice() -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(Path("x.yaml"), "a: 1\na: 2\nb: {c: 1, c: 2}\n")
    assert [(p.line, p.column, p.field) for p in caught.value.problems] == [
        (2, 1, "a"),
        (3, 11, "b.c"),
    ]


def test_endless_value() -> None:
    with pytest.raises(DefinitionError, match="expected YAML"):
        parse(Path("x.yaml"), "a: &a [*a]\n")
