"""Tests inside definition files: what holds, and how the others are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from personas_dagster.answers.cases import run
from personas_dagster.digests import digests
from tests.place import Place

DOC = (Path(__file__).parents[2] / "docs" / "definitions.md").read_text()
EXAMPLE = DOC.split("## Tests\n")[1].split("```yaml\n")[1].split("```")[0]
GIVEN = """\
tests:
  - at: 2026-03-01
    given:
      - {event: Order, userId: ann, timestamp: 2026-02-01, properties: {revenue: 10}}
      - {event: Order, anonymousId: phone, timestamp: 2026-02-02T10:00:00Z,
         properties: {revenue: 2.5}}
      - {userId: ann, anonymousId: phone, traits: {plan: pro, born: 1990-05-01}}
      - {userId: bob, groupId: acme}
"""


def problems(place: Place, path: str, text: str) -> list[str]:
    place.write(f"assets/{path}.yaml", text)
    return [str(one).removeprefix("assets/") for one in run(place.space).problems]


def test_documented_example(place: Place) -> None:
    assert problems(place, "audiences/regulars", EXAMPLE) == []
    found = problems(place, "audiences/regulars", EXAMPLE.replace("[ann]", "[bob]"))
    assert found == [
        "audiences/regulars.yaml:9:14: tests.0.expect.members: «two orders make a regular»: "
        "bob should be in and is not; ann is in and should not be"
    ]


@pytest.mark.parametrize(
    ("path", "query", "expect"),
    [
        ("computed_traits/t", "event('Order').sum(property('revenue'))",
         "values: {ann: 12.5, 'anonymous_id:phone': 12.5, bob: null}"),
        ("computed_traits/t", "event('Order').count()", "values: {ann: 2}"),
        ("computed_traits/t", "event('Order').unique(property('revenue'))",
         "values: {ann: [2.5, 10]}"),
        ("audiences/a", "trait('plan') = 'pro'", "values: {ann: true, bob: false}"),
        ("audiences/a", "trait('born').before_date('2000-01-01')", "members: [ann]"),
        ("audiences/a", "trait('other') >= 2", "members: ['anonymous_id:phone']"),
        ("audiences/a", "event('Order').within(10 days).count() >= 1", "members: []"),
    ],
)  # fmt: skip
def test_holds(place: Place, path: str, query: str, expect: str) -> None:
    place.define({"computed_traits/other": "event('Order').count()"})
    text = f"query: {query}\n{GIVEN}    expect: {{{expect}}}\n"
    assert problems(place, path, text) == []


def test_of_an_account(place: Place) -> None:
    text = f"query: ANY (event('Order').count() >= 1)\ncollection: accounts\n{GIVEN}"
    assert problems(place, "audiences/a", f"{text}    expect: {{value: false}}\n") == []
    text = text.replace("bob, groupId", "ann, groupId")
    assert problems(place, "audiences/a", f"{text}    expect: {{members: [acme]}}\n") == []


@pytest.mark.parametrize(
    ("expect", "wanted"),
    [
        ("values: {ann: 3}", "10:23: tests.0.expect.values.ann: expected 3, found 2 for ann"),
        ("values: {bob: 0}", "expected 0, found no value for bob"),
        ("values: {ann: '2'}", 'expected "2", found 2 for ann'),
        ("values: {cleo: 2}", "no message of this case has user_id `cleo`"),
        ("value: 2", "10:14: tests.0.expect.value: the case is about 2 users, expected one"),
        ("members: [ann]", "a trait has no members"),
    ],
)
def test_does_not_hold(place: Place, expect: str, wanted: str) -> None:
    text = f"query: event('Order').count()\n{GIVEN}    expect: {{{expect}}}\n"
    (found,) = problems(place, "computed_traits/t", text)
    assert found.startswith("computed_traits/t.yaml:10:") and wanted in found


def test_bad_message(place: Place) -> None:
    text = f"query: event('Order').count()\n{GIVEN}    expect: {{value: 2}}\n"
    text = text.replace("event: Order, anonymousId: phone", "event: Order")
    (found,) = problems(place, "computed_traits/t", text)
    assert found.startswith("computed_traits/t.yaml:6:9: tests.0.given.1: this message would be")
    assert "neither `userId` nor `anonymousId`" in found


@pytest.mark.parametrize(("policy", "plan"), [("newest", "pro"), ("oldest", "free")])
def test_merged_people_have_the_values_of_the_space_s_policy(
    place: Place, policy: str, plan: str
) -> None:
    place.write("assets/identity.yaml", f"conflicts: {{plan: {policy}}}\n")
    text = f"""\
query: trait('plan') = '{plan}'
tests:
  - at: 2026-03-01
    given:
      - {{userId: ann, timestamp: 2026-02-01, traits: {{plan: free}}}}
      - {{anonymousId: phone, timestamp: 2026-02-02, traits: {{plan: pro}}}}
      - {{event: Login, userId: ann, anonymousId: phone, timestamp: 2026-02-03}}
    expect: {{members: [ann]}}
"""
    assert problems(place, "audiences/a", text) == []


def test_cases_do_not_meet(place: Place) -> None:
    """The same people, and nothing left of the case before."""
    case = GIVEN.split("tests:\n")[1] + "    expect: {values: {ann: 2}}\n"
    assert problems(place, "computed_traits/t", f"""\
query: event('Order').count()
tests:
{case}{case}""") == []  # fmt: skip
    assert run(place.space).cases == 2


def test_nothing_is_written(place: Place) -> None:
    space = place.refresh({"type": "track", "event": "Order", "userId": "ann"})
    before = digests(space), space.lake.versions()
    assert problems(place, "audiences/regulars", EXAMPLE) == []
    assert (digests(space), space.lake.versions()) == before
