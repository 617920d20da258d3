"""What is wrong with a project: file, line, column, field, what was found, what is expected."""

import re

import pytest

from personas_dagster.project import models
from personas_dagster.project.loader import read_project
from personas_dagster.spaces import destination_problems
from tests.place import Place

WEBHOOK = "type: webhook\nsettings:\n  url: https://example.com\n"
CONNECTION = "audience: big\ndestination: hook\n"
BIG = "query: event('Order').count() >= 1\n"


def problems(place: Place) -> list[str]:
    project, found = read_project(place.root)
    return [str(problem) for problem in sorted(found + destination_problems(project))]


@pytest.mark.parametrize(
    ("path", "text", "wanted"),
    [
        (
            "assets/audiences/a.yaml",
            "query: trait('x') = 1\nlokback: 3 days\n",
            "2:1: lokback: found an unknown field, expected one of: ",
        ),
        (
            "assets/audiences/a.yaml",
            "name: A\n",
            "1:1: found neither, expected exactly one of `query`, `first_time`",
        ),
        (
            "assets/audiences/a.yaml",
            "query: 5\n",
            "1:1: query: found 5, expected a valid string",
        ),
        (
            "assets/computed_traits/t.yaml",
            "query: event('X').count()\ncollection: user\n",
            "2:1: collection: found `user`, expected 'users' or 'accounts'",
        ),
        (
            "assets/computed_traits/t.yaml",
            "query: event('X').count()\nlookback: 3 weeks\n",
            "2:1: lookback: found `3 weeks`, expected a duration such as `30 days`",
        ),
        (
            "assets/audiences/a.yaml",
            "key: Big\n" + BIG,
            "1:1: key: found `Big`, expected snake_case",
        ),
        ("assets/audiences/a.yaml", "- query\n", "1:1: found a list, expected fields"),
        (
            "assets/identity.yaml",
            "types:\n  email: {limit: 0}\n",
            "2:11: types.email.limit.count: found 0, expected greater than or equal to 1",
        ),
        (
            "assets/identity.yaml",
            "types:\n  email: {limit: {count: 5, per: decade}}\n",
            "2:29: types.email.limit.per: found `decade`, expected 'ever', 'day'",
        ),
        (
            "assets/identity.yaml",
            "blocked: ['/[/']\n",
            "1:1: blocked: found `/[/`, expected a regular expression",
        ),
        (
            "resources/warehouses/w.yaml",
            "url: 5\n",
            "1:1: url: found 5, expected text, or {env: NAME} or {file: PATH}",
        ),
        (
            "resources/warehouses/w.yaml",
            "url: {environment: X}\n",
            "1:7: url.environment: found an unknown field, expected one of: env, file",
        ),
        (
            "resources/warehouses/w.yaml",
            "url: postgresql://u:secret@host/db\n",
            "1:1: url: found a password in the file, expected none",
        ),
        (
            "sensors/schedules.yaml",
            "refresh: 61 * * * *\n",
            "1:1: refresh: found `61 * * * *`, expected a cron expression",
        ),
        (
            "sensors/connections/c.yaml",
            "audience: big\ntrait: t\ndestination: hook\n",
            "1:1: found fields, expected exactly one of `audience` and `trait`",
        ),
        (
            "sensors/connections/c.yaml",
            "audience: bigg\ndestination: hook\n",
            "1:1: audience: found `bigg`, expected one of: big; did you mean `big`?",
        ),
        (
            "sensors/connections/c.yaml",
            "audience: big\ndestination: hok\n",
            "2:1: destination: found `hok`, expected one of: hook",
        ),
        (
            "assets/sources/s.yaml",
            "name: S\nspaces: [main, prod]\n",
            "2:16: spaces.1: found `prod`, expected one of: main",
        ),
        (
            "assets/sql_traits/s.yaml",
            "warehouse: dwh\nquery: SELECT 1\n",
            "1:1: warehouse: found `dwh`, expected none",
        ),
        (
            "assets/computed_traits/big.yaml",
            "query: event('X').count()\n",
            "",
        ),
        (
            "resources/destinations/d.yaml",
            "type: webhok\n",
            "1:1: type: found `webhok`, expected one of: ",
        ),
        (
            "resources/destinations/d.yaml",
            WEBHOOK + "  batch_size: 0\n",
            "4:3: settings.batch_size: found 0, expected greater than or equal to 1",
        ),
        (
            "resources/destinations/d.yaml",
            "type: webhook\nsettings:\n  url: ftp://token-in-here\n",
            "3:3: settings.url: found a text, expected an address",
        ),
        (
            "resources/destinations/d.yaml",
            "type: webhook\nsettings:\n  url: https://u:secret@example.com\n",
            "3:3: settings.url: found a password in the file, expected none",
        ),
    ],
)
def test_one_problem(place: Place, path: str, text: str, wanted: str) -> None:
    place.write("assets/audiences/big.yaml", BIG)
    place.write("resources/destinations/hook.yaml", WEBHOOK)
    place.write(path, text)
    found = problems(place)
    if not wanted:  # told at the other file, which comes later by name
        path = "assets/audiences/big.yaml"
        wanted = "1:1: key: found `big`, which assets/computed_traits/big.yaml has"
    assert len(found) == 1, found
    assert found[0].startswith(f"{path}:{wanted}"), found[0]
    assert "secret" not in found[0] and "token-in-here" not in found[0]


QUERIES = {
    "plain": "query: event('X')\n  .wihtin(3 days).count() >= 1\n",
    "quoted": "query: 'event(''X'').wihtin(3 days).count() >= 1'\n",
    "double quoted": "query: \"event('X')\\n\\\n  .wihtin(3 days).count() >= 1\"\n",
    "literal": "query: |\n\n  -- a comment\n  event('X')\n    .wihtin(3 days).count() >= 1\n",
    "folded": "query: >\n  event('X')\n  .wihtin(3 days)\n  .count() >= 1\n",
}


@pytest.mark.parametrize("style", QUERIES)
def test_place_in_a_query(place: Place, style: str) -> None:
    text = "name: A\n" + QUERIES[style]
    place.write("assets/audiences/a.yaml", text)
    (found,) = problems(place)
    line, column = map(int, re.findall(r":(\d+):(\d+): query: ", found)[0])
    assert text.split("\n")[line - 1][column - 1 :].startswith("wihtin"), found
    assert "did you mean `within`" in found


def test_cycles(place: Place) -> None:
    place.define({
        "audiences/a": "trait('b') = true",
        "audiences/b": "trait('c') = true",
        "audiences/c": "event('X').count() > 1 AND trait('a') = true",
        "audiences/own": "trait('own') = true",
        "audiences/fine": "trait('a') = true",
    })  # fmt: skip
    assert [found.split("; ")[0] for found in problems(place)] == [
        "assets/audiences/c.yaml:2:30: query: these definitions wait for each other: "
        "a -> b -> c -> a",
        "assets/audiences/own.yaml:2:3: query: these definitions wait for each other: own -> own",
    ]


def test_everything_at_once(place: Place) -> None:
    place.write("assets/audiences/a.yaml", "query: [\n")
    place.write("assets/audiences/b.yaml", "query: event('X'\n")
    place.write("assets/audiences/c.yaml", "qery: x\nname: 5\n")
    place.write("assets/identity.yaml", "types: {email: {priority: first}}\n")
    place.write("resources/destinations/hook.yaml", WEBHOOK + "  timeout: -1\n")
    place.write("sensors/connections/to.yaml", "audience: a\ndestination: hook\n")
    place.write("resources/spaces/second.yaml", "lake: {location: x}\n")
    files = [found.split(":")[0] for found in problems(place)]
    assert files == [
        "assets/audiences/a.yaml",
        "assets/audiences/b.yaml",
        *["assets/audiences/c.yaml"] * 2,  # whether a query is missing is seen when these hold
        "assets/identity.yaml",
        "resources/destinations/hook.yaml",
        *["resources/spaces/second.yaml"] * 2,
    ]


def test_rules_of_a_space(place: Place) -> None:
    path = "resources/spaces/main.yaml"
    text = (place.root / path).read_text()
    place.write(path, text + "identity:\n  types: {email: {limit: x}}\n  hub: 3\n")
    assert [found.split(" found")[0] for found in problems(place)] == [
        f"{path}:8:19: identity.types.email.limit:",
        f"{path}:9:3: identity.hub:",
    ]
    place.write(path, text + "identity:\n  types: 5\n")
    assert [found.split(" found")[0] for found in problems(place)] == [
        f"{path}:8:3: identity.types:"
    ]


def test_settings_in_front_of_sql(place: Place) -> None:
    text = "-- no settings\nSELECT 1"
    place.write("assets/sql_traits/plain.sql", text)
    place.write("assets/sql_traits/s.sql", "/*\nwarehouse: lake\nowners: me\n*/\nSELECT 1")
    (found,) = problems(place)
    assert found.startswith("assets/sql_traits/s.sql:3:1: owners: found an unknown field")
    project, _ = read_project(place.root)
    assert project.sql_traits["plain"].model.query == text


def test_disabled_is_checked_too(place: Place) -> None:
    place.write("assets/audiences/a.yaml", "query: event('X'\nenabled: false\n")
    assert len(problems(place)) == 1


def test_not_text(place: Place) -> None:
    place.write("assets/audiences/a.yaml", "").write_bytes(b"query: \xff\n")
    assert problems(place) == [
        "assets/audiences/a.yaml:1:1: found bytes that are not UTF-8, expected text; save the "
        "file as UTF-8"
    ]


def test_folders_in_folders(place: Place) -> None:
    place.write("assets/audiences/email/newsletter.yaml", BIG)
    project, found = read_project(place.root)
    assert not found and list(project.audiences) == ["newsletter"]


LISTS = "type: iterable_lists\nsettings:\n  api_key: {env: ITERABLE_KEY}\n"


@pytest.mark.parametrize(
    ("connection", "wanted"),
    [
        (
            "destination: lists\ntrait: spent\n",
            "2:1: trait: connection c: destination lists takes ",
        ),
        ("audience: big\ndestination: hook\nlist_id: '4'\n", "1:1: audience: connection c: destin"),
        ("audience: big\ndestination: hook\nalias: true\n", "does not know alias"),
        ("audience: big\ndestination: hook\nsend: [group]\n", "cannot take group of users"),
    ],
)
def test_what_a_destination_cannot_take_is_said_at_once(
    place: Place, connection: str, wanted: str
) -> None:
    place.write("assets/audiences/big.yaml", BIG)
    place.write("assets/computed_traits/spent.yaml", "query: event('Order').count()\n")
    place.write("resources/destinations/hook.yaml", WEBHOOK)
    place.write("resources/destinations/lists.yaml", LISTS)
    place.write("sensors/connections/c.yaml", connection)
    (problem,) = problems(place)
    assert wanted in problem and "sensors/connections/c.yaml" in problem
    place.write("sensors/connections/c.yaml", "audience: big\ndestination: lists\nlist_id: '4'\n")
    assert problems(place) == []


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("*/15 0-6 1,15 jul mon-fri", True), ("0 9 * * wed", True), ("0 0 L * *", False),
        ("0 0 * * mon#1", False), ("@daily", False), ("0 0 * * * *", False), ("", False),
        ("0 25 * * *", False), ("0 0 LW * *", False),
    ],
)  # fmt: skip
def test_cron_expressions(text: str, holds: bool) -> None:
    try:
        assert models.Schedules(refresh=text).refresh == text and holds
    except ValueError as error:
        assert not holds and "five fields" in str(error)


def test_column_of_two_sql_traits(place: Place) -> None:
    """One line that names both files; so for a column that is another definition's key."""
    place.write("assets/sql_traits/a.sql", "SELECT user_id, 1 AS tickets, 2 AS calls FROM t")
    place.write(
        "assets/sql_traits/b.yaml",
        "warehouse: lake\nquery: |\n  SELECT email, count(*) AS tickets FROM u GROUP BY 1\n",
    )
    place.write("assets/computed_traits/calls.yaml", "query: event('Call').count()\n")
    assert problems(place) == [
        "assets/sql_traits/a.sql:1:1: query: found the column `calls`, which "
        "assets/computed_traits/calls.yaml has too; rename it with AS",
        "assets/sql_traits/b.yaml:2:1: query: found the column `tickets`, which "
        "assets/sql_traits/a.sql has too; rename it with AS",
    ]


def test_columns_in_spaces_of_their_own(place: Place) -> None:
    for key, space in (("a", "main"), ("b", "second")):
        front = f"/*\nspaces: [{space}]\n*/\n"
        place.write(f"assets/sql_traits/{key}.sql", front + "SELECT user_id, 1 AS tickets FROM t")
    text = (place.root / "resources/spaces/main.yaml").read_text()
    place.write("resources/spaces/second.yaml", text.replace("default: true\n", ""))
    assert problems(place) == []


@pytest.mark.parametrize(
    ("cron", "holds"), [("0 * * * *", True), ("15 6,7 * * 1", True), ("*/30 * * * *", False)]
)
def test_sql_traits_run_at_most_hourly(place: Place, cron: str, holds: bool) -> None:
    place.write("sensors/schedules.yaml", f"refresh: '*/5 * * * *'\nsql_traits: '{cron}'\n")
    told = [] if holds else ["sensors/schedules.yaml:2:1: sql_traits: found"]
    assert [found.split(f" `{cron}`")[0] for found in problems(place)] == told
