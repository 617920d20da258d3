"""Ready-made forms are the queries that docs/definitions.md says they are, and nothing else."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from personas_dagster import asking
from personas_dagster.errors import DefinitionError
from personas_dagster.project import forms, models
from personas_dagster.project.loader import load_project, read_definition
from personas_dagster.query import parse, unparse
from tests.place import NOW, Place

DOC = (Path(__file__).parents[2] / "docs" / "definitions.md").read_text()
FORMS = {**forms.TRAIT_FORMS, **forms.AUDIENCE_FORMS}
EXAMPLES = [
    (yaml.safe_load(form), query.strip())
    for form, query in re.findall(
        rf"```yaml\n((?:{'|'.join(FORMS)}): .*?)```\n\n```\n(.*?)```", DOC, re.DOTALL
    )
]


def model(data: dict[str, Any]) -> models.ComputedTrait | models.Audience:
    name = next(iter(data))
    if name in forms.AUDIENCE_FORMS:
        return models.Audience(key="one", name="One", **data)
    return models.ComputedTrait(key="one", **data)


@pytest.mark.parametrize(("data", "query"), EXAMPLES, ids=[next(iter(d)) for d, _ in EXAMPLES])
def test_documented_example(data: dict[str, Any], query: str) -> None:
    text = model(data).text
    assert text == query
    assert parse(text).type == ("boolean" if " >= " in query else "value")


def test_every_form_has_an_example() -> None:
    assert {next(iter(data)) for data, _ in EXAMPLES} == set(FORMS)


DAYS = {
    "first_time": {(1,): True, (40,): False, (1, 40): False, (): False},
    "regularly": {(1, 8, 15): True, (1, 2, 15): False, (8, 15, 22): False},
    "stopped": {(61, 62): True, (61,): False, (61, 62, 5): False, (181, 182): False},
    "came_back": {(3, 80): True, (3,): False, (3, 40, 80): False, (80,): False},
}


@pytest.mark.parametrize("form", DAYS)
def test_lifecycle(place: Place, form: str) -> None:
    """Orders so many days ago, and whether that makes a member."""
    (data,) = [data for data, _ in EXAMPLES if next(iter(data)) == form]
    people = {f"user-{number}": days for number, days in enumerate(DAYS[form])}
    space = place.refresh(
        *(
            {"type": "track", "event": "Order Completed", "userId": user,
             "messageId": f"{user}-{n}",
             "timestamp": (NOW - dt.timedelta(days=day)).isoformat()}
            for user, days in people.items() for n, day in enumerate(days)
        )
    )  # fmt: skip
    asked = asking.ask([model(data).text])
    with asking.answers(space, asked, as_of=NOW) as session:
        found = {row["external_ids"]["user_id"][0] for row in asking.rows(session, asked)}
    assert found == {user for user, days in people.items() if DAYS[form][days]}


def test_condition_with_a_comment() -> None:
    text = model({"event_counter": {"event": "X", "where": "property('a') = 1 -- why"}}).text
    assert unparse(parse(text)) == "event('X').where(property('a') = 1).count()"


def test_name_with_a_quote() -> None:
    text = model({"last": {"event": "It's", "property": "it's"}}).text
    assert unparse(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("event_counter: {event: X}\nquery: event('X').count()\n",
         "found `query` and `event_counter`, expected exactly one of"),
        ("description: nothing\n", "found neither, expected exactly one of"),
        ("event_counter: {event: X, within: a week}\n",
         "one.yaml:1:27: event_counter.within: found `a week`, expected a duration"),
        ("event_counter: {event: X, wher: a}\n", "did you mean `where`?"),
        ("event_counter:\n  event: X\n  where: property('a') >= wihtin(1)\n",
         "one.yaml:3:27: event_counter.where:"),
        ("first_time: {event: X, within: 1 day}\n", "found an unknown field"),
        ("schedule: hourly\nevent_counter: {event: X}\n",
         "one.yaml:1:1: schedule: found `hourly`, expected a cron expression"),
    ],
)  # fmt: skip
def test_problems(place: Place, text: str, wanted: str) -> None:
    place.write("assets/computed_traits/one.yaml", text)
    with pytest.raises(DefinitionError) as raised:
        load_project(place.root)
    (problem,) = raised.value.problems
    assert wanted in str(problem)


def test_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "draft.yaml"
    file.write_text("stopped: {event: Order, silent: 30 days}\n")
    declared = read_definition(file)
    assert isinstance(declared.model, models.Audience) and declared.model.key == "draft"
    file.write_text("query: event('Order').cuont()\n")
    with pytest.raises(DefinitionError, match="1:23: query: .*did you mean `count`"):
        read_definition(file)
