"""Deletion as people and programs ask for it: the command, the API, Dagster's records."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import dagster as dg
import pytest
from fastapi.testclient import TestClient

from personas_dagster import access, refresh
from personas_dagster.resources import history
from personas_dagster.resources.launch import dagster_home
from personas_dagster.serving.app import build
from tests.cli.running import Personas
from tests.place import COMMAND, NOW, Place

EMAIL = "ann.secret@example.com"


def said(number: int, **fields: Any) -> dict[str, Any]:
    return {"type": "identify", "messageId": f"m{number}", "receivedAt": "2026-02-01T10:00:00Z",
            **fields}  # fmt: skip


ROWS = [
    said(
        1,
        userId="user-ann-secret",
        anonymousId="device-of-ann",
        traits={"email": EMAIL, "city": "Delft"},
    ),
    said(2, userId="user-bob", traits={"city": "Ulm"}),
]  # fmt: skip


@pytest.fixture
def personas(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Personas:
    monkeypatch.setenv("COLUMNS", "200")
    return Personas(place.root, monkeypatch, capfd)


def test_the_command(personas: Personas, place: Place) -> None:
    file = place.messages(*ROWS)
    assert personas("ingest", file).code == 0
    assert personas("refresh").code == 0
    file.unlink()
    exports = [place.root / f"{name}.csv" for name in ("all", "hashed")]
    assert personas("export", "trait", "city", "--out", exports[0]).code == 0
    hashed = ["--format", "single", "--id-type", "user_id"]
    assert personas("export", "trait", "city", *hashed, "--out", exports[1]).code == 0
    rows = [len(path.read_text().splitlines()) for path in exports]
    asked = personas("delete", f"email:{EMAIL}")
    assert asked.code == 1 and "say --yes" in asked.err
    ended = personas("delete", f"email:{EMAIL}", "--yes", "--verify")
    assert ended.code == 0, ended.err
    receipt, verified = ended.rows
    assert receipt["profiles"] == 1 and receipt["rows"]["raw_events"] == 1
    assert verified == {"verified": True, "found": 0}
    assert EMAIL not in ended.out + ended.err
    assert receipt["rows"]["exports"] == 2
    assert [len(path.read_text().splitlines()) for path in exports] == [n - 1 for n in rows]
    again = personas("delete", f"email:{EMAIL}", "--verify")
    assert again.code == 0 and "deleted before" in again.err
    assert personas("profile", "user_id:user-bob").code == 0
    assert personas("profile", f"email:{EMAIL}").code == 1


def test_verify_says_where_something_is_left(personas: Personas, place: Place) -> None:
    place.refresh(*ROWS)
    left = place.root / ".personas" / "landing" / "forgotten.txt"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text(f"seen: {EMAIL}", encoding="utf-8")
    ended = personas("delete", f"email:{EMAIL}", "--yes", "--verify")
    assert ended.code == 1 and "forgotten.txt" in ended.err


@pytest.mark.parametrize(
    ("who", "why"), [("group_id:acme", "names an account"), ("email:no@x.com", "no user's profile")]
)
def test_nobody(personas: Personas, place: Place, who: str, why: str) -> None:
    place.refresh(*ROWS)
    ended = personas("delete", who, "--yes")
    assert ended.code == 1 and why in ended.err and len(ended.lines) == 1


def test_over_http(place: Place) -> None:
    space = place.refresh(*ROWS, said(3, userId="user-bob", traits={"email": "bob@example.com"}))
    refresh.keep_profiles(space)
    _, reader = access.create(space.state, "main", "reader", roles=["read"], now=NOW)
    _, admin = access.create(space.state, "main", "admin", roles=["admin"], now=NOW)
    people = "/v1/spaces/main/collections/users/profiles"
    with TestClient(build({"main": space}, keys=None, now=lambda: NOW)) as client:
        ask = {"delete_external_ids": [{"type": "email", "id": "bob@example.com"}]}
        ids = f"{people}/user_id:user-bob/external_ids/delete"
        assert client.post(ids, json=ask, auth=(reader, "")).status_code == 403
        assert client.post(ids, json=ask, auth=(admin, "")).json()["status"] == "next_refresh"
        person = f"{people}/email:{EMAIL}"
        assert client.delete(person, auth=(reader, "")).status_code == 403
        assert client.get(f"{person}/traits", auth=(admin, "")).status_code == 200
        receipt = client.delete(person, auth=(admin, ""))
        assert receipt.status_code == 200 and receipt.json()["by"] == "token admin"
        assert EMAIL not in receipt.text
        for method in ("GET", "DELETE"):
            at = f"{person}/traits" if method == "GET" else person
            gone = client.request(method, at, auth=(admin, ""))
            assert gone.json()["error"]["code"] == "not_found"
        with space.state.lease("refresh", owner="x", holder="a refresh"):
            busy = client.delete(f"{people}/user_id:user-bob", auth=(admin, ""))
        assert busy.status_code == 409


def test_runs_that_name_the_person_leave_dagsters_records(place: Place) -> None:
    @dg.asset
    def seen() -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(metadata={"offending": EMAIL})

    @dg.asset
    def unseen() -> None:
        pass

    home = dagster_home(place.root)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        named = dg.materialize([seen], instance=instance).run_id
        other = dg.materialize([unseen], instance=instance).run_id
    assert history.forget(place.root, [EMAIL]) == 1
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_run_by_id(named) is None
        assert instance.get_run_by_id(other) is not None
    stored = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert EMAIL.encode() not in stored


@pytest.mark.parametrize(
    ("at", "kind", "value", "status"),
    [
        ("user_id:user-ann-secret", "user_id", "user-ann-secret", 400),  # it was looked up by
        ("user_id:user-ann-secret", "email", "bob@example.com", 404),  # somebody else's
        ("user_id:nobody", "email", EMAIL, 404),
        ("user_id:user-ann-secret", "group_id", "acme", 400),
        ("email:x@example.com", "email", EMAIL, 400),  # not by a user_id
    ],
)
def test_identifiers_that_are_not_deleted(
    place: Place, at: str, kind: str, value: str, status: int
) -> None:
    space = place.refresh(*ROWS, said(3, userId="user-bob", traits={"email": "bob@example.com"}))
    _, admin = access.create(space.state, "main", "admin", roles=["admin"], now=NOW)
    people = "/v1/spaces/main/collections/users/profiles"
    with TestClient(build({"main": space}, now=lambda: NOW)) as client:
        ask = {"delete_external_ids": [{"type": kind, "id": value}]}
        found = client.post(f"{people}/{at}/external_ids/delete", json=ask, auth=(admin, ""))
    assert found.status_code == status and found.json()["error"]["message"]


@pytest.mark.slow
def test_a_killed_command_is_finished_by_the_next(place: Place) -> None:
    """Whatever instant it is killed at, nothing of the others is lost, and the next one is done."""
    file = place.messages(*ROWS)
    place.take(file)
    space = place.refresh()
    file.unlink()
    command = [str(COMMAND), "delete", f"email:{EMAIL}", "--yes"]
    for seconds in (3.0, 4.0, 4.5, 5.0, 5.5):
        process = subprocess.Popen(command, cwd=place.root, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        process.kill()
        process.wait()
    ended = place.personas("delete", f"email:{EMAIL}", "--yes", "--verify")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == {"verified": True, "found": 0}
    with space.engine.session(space.lake) as session:
        session.view("raw_events")
        left = session.fetch("SELECT user_id FROM raw_events").column(0).to_pylist()
    assert left == ["user-bob"]
