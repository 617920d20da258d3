"""`personas destination`: what there is, whether it works, and settings from another space."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from personas_dagster.simulators import Simulator, simulator
from personas_dagster.simulators.serving import Served
from personas_dagster.state.schema import syncs
from tests.cli.running import Personas
from tests.place import SPACE, Place

FILE = "resources/destinations/mailer.yaml"
MAILER = """\
type: iterable
# Ask Ann before you change this.
settings:
  base_url: {url}
  api_key: {{env: MAILER_KEY}}  # in the vault
{more}"""


@pytest.fixture
def account(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """Destination `mailer` of space main, at a simulator, with one connection."""
    made = simulator("iterable", key="the-key-of-the-mailer")
    monkeypatch.setenv("MAILER_KEY", made.key)
    with Served() as served:
        url = served.add("mailer", made)
        place.write(FILE, MAILER.format(url=url, more="spaces: [main]\n"))
        place.write("resources/spaces/other.yaml", SPACE.replace("default: true\n", "")
                    .replace(".personas", ".other"))  # fmt: skip
        place.define({"audiences/buyers": "event('Order').count() >= 1"})
        place.write("sensors/connections/c.yaml", "audience: buyers\ndestination: mailer\n")
        yield made


def test_list(personas: Personas, place: Place, account: Simulator) -> None:
    (row,) = personas("destination", "list").rows
    assert (row["destination"], row["type"], row["kind"]) == ("mailer", "iterable", "event")
    assert (row["connections"], row["requests_per_second"]) == (["c"], 500)
    assert row["last_sync"] is None
    place.refresh({"type": "track", "event": "Order", "messageId": "m", "userId": "u1",
                   "receivedAt": "2026-01-01T00:00:00Z"})  # fmt: skip
    assert personas("sync").code == 0
    (row,) = personas("destination", "list").rows
    assert row["last_sync"]["status"] == "finished"
    assert row["last_sync"]["confirmed"] == 1


def test_list_reads_no_secret(
    personas: Personas, account: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAILER_KEY")
    assert personas("destination", "list").code == 0
    ended = personas("destination", "test", "mailer")
    assert ended.code == 1
    assert ended.lines == ["personas: environment variable MAILER_KEY is not set; export it first"]


def test_a_test_message(personas: Personas, place: Place, account: Simulator) -> None:
    ended = personas("destination", "test", "mailer", "--to", "email:me@example.com")
    assert ended.code == 0, ended
    assert ended.rows == [{"destination": "mailer", "type": "iterable", "works": True, "sent": 1}]
    assert account.people["me@example.com"]["personas_test"] is True
    assert account.key not in ended.err
    assert place.space.state.rows(sa.select(syncs)) == []
    assert place.space.lake.version("ledger") is None


def test_nothing_is_sent_unasked(personas: Personas, account: Simulator) -> None:
    ended = personas("destination", "test", "mailer")
    assert ended.code == 0 and ended.rows[0]["sent"] == 0
    assert account.people == {}


def test_what_the_tool_refuses(
    personas: Personas, account: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILER_KEY", "another-key-altogether")
    ended = personas("destination", "test", "mailer", "--to", "email:me@example.com", "-q")
    assert ended.code == 1 and "HTTP 401" in ended.err
    assert ended.rows[0]["works"] is False
    assert "another-key-altogether" not in ended.out + ended.err


@pytest.mark.parametrize("to", ["me@example.com", "shoe_size:42", "email:"])
def test_to_nobody(personas: Personas, account: Simulator, to: str) -> None:
    ended = personas("destination", "test", "mailer", "--to", to)
    assert ended.code == 1 and len(ended.lines) == 1
    assert f"found --to {to}, expected TYPE:VALUE" in ended.err


def test_import_serves_both_spaces(personas: Personas, place: Place, account: Simulator) -> None:
    path = place.root / FILE
    before = path.read_text()
    asked = personas("destination", "import", "mailer", "--from", "main", "--space", "other")
    assert asked.code == 1 and path.read_text() == before
    assert "-spaces: [main]" in asked.err and "+spaces: [main, other]" in asked.err
    ended = personas(
        "destination", "import", "mailer", "--from", "main", "--space", "other", "--yes"
    )
    assert ended.code == 0, ended
    assert path.read_text() == before.replace("[main]", "[main, other]")  # comments stay
    assert personas("check").code == 0
    names = [row["destination"] for row in personas("destination", "list", "--space", "other").rows]
    assert names == ["mailer"]


def test_import_as_a_destination_of_its_own(
    personas: Personas, place: Place, account: Simulator
) -> None:
    space = place.root / "resources/spaces/other.yaml"
    space.write_text(space.read_text() + "destinations: []  # none yet\n")
    before = (place.root / FILE).read_text()
    ended = personas("destination", "import", "mailer", "--from", "main", "--space", "other",
                     "--as", "mailer_eu", "--yes")  # fmt: skip
    assert ended.code == 0, ended
    assert ended.rows[0]["changed"] == [
        "resources/destinations/mailer_eu.yaml", "resources/spaces/other.yaml",
    ]  # fmt: skip
    assert (place.root / FILE).read_text() == before
    copied = (place.root / "resources/destinations/mailer_eu.yaml").read_text()
    assert copied == before.replace("[main]", "[other]")
    assert "# none yet\n- mailer_eu\n" in space.read_text()
    assert personas("check").code == 0
    written = [file for file in place.root.rglob("*.yaml") if account.key in file.read_text()]
    assert written == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("mailer --from main", "--from main is the space itself"),
        ("sms --from main --space other", "space main has no destination `sms`; it has mailer"),
        ("mailer --from moon --space other", "no space is named `moon`"),
        ("mailer --from main --space other --as mailer", "there is a destination `mailer` already"),
    ],
)
def test_import_of_nothing(
    personas: Personas, account: Simulator, arguments: str, said: str
) -> None:
    ended = personas("destination", "import", *arguments.split(), "--yes")
    assert ended.code == 1 and said in ended.err


def test_a_secret_in_the_file(personas: Personas, place: Place, account: Simulator) -> None:
    path = Path(place.root / FILE)
    place.refresh()
    path.write_text(path.read_text().replace("{env: MAILER_KEY}", "a-literal-key-of-mine"))
    for command in ("check", "sync", "destination test mailer"):
        ended = personas(*command.split())
        assert ended.code == 1, command
        assert "api_key" in ended.err and "{env: NAME}" in ended.err, command
        assert "a-literal-key-of-mine" not in ended.err
