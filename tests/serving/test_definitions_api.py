"""The Definitions API writes the files that people keep, and refuses what `check` refuses."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml
from fastapi.testclient import TestClient
from pytest_httpserver import HTTPServer

from personas_dagster import access, refresh
from personas_dagster.project.loader import load_project
from personas_dagster.serving.app import build
from personas_dagster.serving.reloading import URL
from tests.place import NOW, SPACE, Place

ORDER = {"type": "track", "event": "Order", "userId": "u1", "receivedAt": "2026-02-28T00:00:00Z"}
BUYERS = {
    "name": "Buyers of late",
    "definition": {"query": "event('Order').within(30 days).count() >= 1", "type": "USERS"},
}
BY_HAND = """\
# Why: the shop asked for it.
name: By hand
tags:
  - money   # of the shop
query: event('Order').count() >= 1
spaces: [main]
"""


class Api:
    """A client with a token for each role."""

    def __init__(self, place: Place, client: TestClient) -> None:
        self.place, self.client = place, client
        self.tokens = {
            role: access.create(place.space.state, "main", role, roles=[role], now=NOW)[1]
            for role in ("read", "define", "sync")
        }

    def __call__(
        self, method: str, path: str, body: Any = None, *, role: str = "define"
    ) -> httpx.Response:
        return self.client.request(
            method, f"/v1/spaces/main/{path}", json=body, auth=(self.tokens[role], "")
        )

    def file(self, path: str) -> str:
        return (self.place.root / path).read_text(encoding="utf-8")


@pytest.fixture
def api(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.delenv(URL, raising=False)
    place.write("assets/audiences/by_hand.yaml", BY_HAND)
    clock = iter(NOW + dt.timedelta(seconds=n) for n in range(1000))
    with TestClient(
        build({"main": place.space}, now=lambda: next(clock)), raise_server_exceptions=False
    ) as client:
        yield Api(place, client)


@pytest.mark.parametrize(("path", "folder"), [("audiences", "audiences"),
                                              ("computed-traits", "computed_traits")])  # fmt: skip
def test_made_read_changed_deleted(api: Api, path: str, folder: str) -> None:
    query = BUYERS["definition"]["query"] if folder == "audiences" else "event('Order').count()"  # type: ignore[index]
    made = api("POST", path, {"name": "Of Late!", "definition": {"query": query}, "enabled": False})
    assert made.status_code == 201
    assert made.json()["key"] == "of_late"
    assert made.json()["status"]["state"] == "disabled"
    assert yaml.safe_load(api.file(f"assets/{folder}/of_late.yaml")) == {
        "name": "Of Late!",
        "enabled": False,
        "key": "of_late",
        "query": query,
        "spaces": ["main"],
    }
    changed = api("PATCH", f"{path}/of_late", {"enabled": True, "options": {"owner": "team:crm"}})
    assert changed.status_code == 200
    read = api("GET", f"{path}/of_late", role="read").json()
    assert read["enabled"] is True and read["options"]["owner"] == "team:crm"
    assert read["definition"] == {"query": query, "type": "USERS"}
    assert (read["status"]["state"], read["status"]["as_of"]) == ("waiting", None)
    assert "of_late" in [one["key"] for one in api("GET", path).json()["data"]]
    load_project(api.place.root)
    assert api("DELETE", f"{path}/of_late").json()["deleted"] is True
    assert api("GET", f"{path}/of_late").status_code == 404
    assert not (api.place.root / f"assets/{folder}/of_late.yaml").exists()


def test_what_is_not_touched_stays(api: Api) -> None:
    query = "event('Order')\n  .count() >= 2"
    body = {"definition": {"query": query}, "options": {"description": "Often."}}
    assert api("PATCH", "audiences/by_hand", body).status_code == 200
    assert api.file("assets/audiences/by_hand.yaml") == (
        BY_HAND.replace(
            "query: event('Order').count() >= 1", "query: |\n  " + query.replace("\n", "\n  ")
        )
        + "description: Often.\ncollection: users\n"
    )


def test_status_follows_the_refresh_and_a_second_edit_waits(api: Api) -> None:
    api("POST", "audiences", BUYERS)
    assert api("GET", "audiences/buyers_of_late").json()["status"]["state"] == "waiting"
    first = NOW + dt.timedelta(hours=1)
    api.place.refresh(ORDER, as_of=first)
    status = api("GET", "audiences/buyers_of_late").json()["status"]
    assert status == {
        "state": "computed", "as_of": "2026-03-01T13:00:00Z", "size": 1,
        "is_stale": False, "stale": [],
    }  # fmt: skip
    edit = {"definition": {"query": "event('Order').count() >= 5"}}
    assert api("PATCH", "audiences/buyers_of_late", edit).json()["status"]["state"] == "waiting"
    again = api("PATCH", "audiences/buyers_of_late", edit)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")
    assert "was edited and is not computed yet" in again.json()["error"]["message"]
    assert api("PATCH", "audiences/buyers_of_late", {"name": "Other"}).status_code == 200


def test_edit_is_locked_until_it_is_computed_itself(api: Api) -> None:
    """A refresh of other definitions, or one that began before the edit, does not unlock it."""
    place = api.place
    api("POST", "audiences", BUYERS)
    place.refresh(ORDER)
    space, earlier = place.space, NOW
    this = refresh.begin(space, run_id="under-way", now=earlier, as_of=NOW)
    edit = {"definition": {"query": "event('Order').count() >= 5"}}
    assert api("PATCH", "audiences/buyers_of_late", edit).status_code == 200
    refresh.compute_definitions(space, this)
    refresh.finish(space, this, now=NOW + dt.timedelta(hours=1))
    assert api("PATCH", "audiences/buyers_of_late", edit).status_code == 409
    with place.space.session() as session:  # it worked on the definitions as it found them
        assert session.fetch("SELECT count(*) FROM members").column(0)[0].as_py() == 2
    for only, status in ((["by_hand"], 409), (["buyers_of_late"], 200)):
        space = place.space
        begun = refresh.begin(
            space, run_id=f"only-{only}", now=NOW + dt.timedelta(hours=2), as_of=NOW
        )
        refresh.compute_definitions(space, begun, only=only)
        refresh.finish(space, begun, now=NOW + dt.timedelta(hours=3))
        assert api("PATCH", "audiences/buyers_of_late", edit).status_code == status


def test_edit_tells_what_it_does(api: Api) -> None:
    """Who enters and leaves, and how long each connected destination needs at its rate."""
    place = api.place
    place.write(
        "resources/destinations/hook.yaml",
        "type: webhook\nsettings: {url: https://example.com, requests_per_second: 2}\n",
    )
    place.write("sensors/connections/told.yaml", "audience: by_hand\ndestination: hook\n")
    orders = [{**ORDER, "userId": f"u{n}", "messageId": f"m{n}"} for n in range(5)]
    place.write("assets/audiences/by_hand.yaml", BY_HAND.replace(">= 1", ">= 2"))
    place.refresh(*orders, {**ORDER, "userId": "u0"})
    answer = api(
        "PATCH", "audiences/by_hand", {"definition": {"query": "event('Order').count() >= 1"}}
    )
    plan = answer.json()["plan"]
    assert plan.pop("as_of").startswith("2026-03-01T12:00")
    assert plan == {
        "before": 1, "after": 5, "entering": 4, "leaving": 0, "changed": 0,
        "destinations": [{"connection": "told", "destination": "hook", "changes": 4,
                          "seconds": 2.0}],
    }  # fmt: skip
    assert api("PATCH", "audiences/by_hand", {"name": "Same"}).json()["plan"] is None


def test_status_tells_a_late_schedule(api: Api) -> None:
    api.place.refresh(ORDER, as_of=NOW - dt.timedelta(hours=2))
    found = api("GET", "audiences").json()["data"][0]["status"]
    assert (found["state"], found["as_of"], found["size"]) == (
        "computed", "2026-03-01T10:00:00Z", 1,
    )  # fmt: skip
    assert found["is_stale"] and "due at `0 * * * *`" in found["stale"][0]
    body = {"definition": {"query": "event('Order').count() >= 1"}}
    assert api("POST", "audiences/preview", body).json()["is_stale"]


@pytest.mark.parametrize(
    ("body", "field", "told"),
    [
        ({"definition": {"query": "event('Order').count( >= 1"}}, "query", "unexpected `>=`"),
        (
            {"definition": {"query": "trait('buyers_of_late') = true"}},
            "query",
            "wait for each other",
        ),
        ({"options": {"nothing": 1}}, "nothing", "unknown field"),
        ({"options": {"owner": 5}}, "owner", "expected"),
        ({"options": {"spaces": ["main"], "lookback": "soon"}}, "lookback", "30 days"),
    ],
)
def test_problems_as_check_tells_them(
    api: Api, body: dict[str, Any], field: str, told: str
) -> None:
    answer = api("POST", "audiences", {**BUYERS, **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == "validation_error"
    (problem,) = error["problems"]
    assert problem["field"] == field and told in problem["message"]
    assert problem["file"] == "assets/audiences/buyers_of_late.yaml" and problem["line"] >= 1
    assert not (api.place.root / problem["file"]).exists()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "audiences", {"name": "x"}, 400),
        ("POST", "audiences", {**BUYERS, "nothing": 1}, 400),
        ("POST", "audiences", {**BUYERS, "key": "../../escape"}, 400),
        ("POST", "audiences", {**BUYERS, "name": "日本"}, 400),
        ("POST", "audiences", {**BUYERS, "options": {"query": "x"}}, 400),
        ("POST", "audiences", {**BUYERS, "key": "by_hand"}, 409),
        ("POST", "computed-traits", {**BUYERS, "key": "by_hand"}, 409),
        ("POST", "audiences", {**BUYERS, "options": {"spaces": ["other"]}}, 409),
        ("PATCH", "audiences/nobody", {"name": "x"}, 404),
        ("PATCH", "audiences/by_hand", {"key": "other"}, 400),
        ("DELETE", "audiences/nobody", None, 404),
        ("GET", "computed-traits/by_hand", None, 404),
    ],
)
def test_refused(api: Api, method: str, path: str, body: Any, status: int) -> None:
    answer = api(method, path, body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) >= {"code", "message"}


def test_key_is_never_used_again(api: Api) -> None:
    api("POST", "audiences", BUYERS)
    api.place.refresh(ORDER)
    api("DELETE", "audiences/buyers_of_late")
    api.place.refresh(as_of=NOW + dt.timedelta(hours=1))
    other = {**BUYERS, "definition": {"query": "event('Visit').count() >= 1"}}
    answer = api("POST", "audiences", other)
    assert answer.status_code == 409 and "never used again" in answer.json()["error"]["message"]
    assert api("POST", "audiences", BUYERS).status_code == 201  # the same definition revives it


def test_roles(api: Api) -> None:
    assert api("GET", "audiences", role="read").status_code == 200
    assert api("GET", "audiences", role="sync").status_code == 403
    for method, path in (
        ("POST", "audiences"),
        ("PATCH", "audiences/by_hand"),
        ("DELETE", "audiences/by_hand"),
        ("POST", "audiences/preview"),
    ):
        assert api(method, path, BUYERS, role="read").status_code == 403, (method, path)


def test_other_spaces_keep_theirs(api: Api) -> None:
    elsewhere = SPACE.replace("default: true\n", "").replace(".personas/", ".personas/elsewhere/")
    api.place.write("resources/spaces/elsewhere.yaml", elsewhere)
    api.place.write("assets/audiences/shared.yaml", "query: event('Order').count() >= 1\n")
    for method in ("PATCH", "DELETE"):
        answer = api(method, "audiences/shared", {"name": "x"} if method == "PATCH" else None)
        assert answer.status_code == 409
        assert "is also of space elsewhere" in answer.json()["error"]["message"]
    api("POST", "audiences", BUYERS)
    assert yaml.safe_load(api.file("assets/audiences/buyers_of_late.yaml"))["spaces"] == ["main"]


def test_deleting_what_is_connected_is_refused(api: Api) -> None:
    api.place.write(
        "assets/audiences/on_top.yaml", "query: trait('by_hand') = true\nspaces: [main]\n"
    )
    api.place.write(
        "resources/destinations/hook.yaml",
        "type: webhook\nsettings: {url: 'https://hook.invalid'}\n",
    )
    api.place.write("sensors/connections/hand.yaml", "audience: by_hand\ndestination: hook\n")
    answer = api("DELETE", "audiences/by_hand")
    assert answer.status_code == 400
    assert answer.json()["error"]["problems"][0]["file"] == "sensors/connections/hand.yaml"
    assert (api.place.root / "assets/audiences/by_hand.yaml").exists()


def test_preview_writes_nothing_and_masks(api: Api) -> None:
    person = {
        "type": "identify", "userId": "u1", "traits": {"email": "ann@example.com"},
        "receivedAt": "2026-02-27T00:00:00Z",
    }  # fmt: skip
    api.place.refresh(person, ORDER)
    before = sorted(api.place.root.glob("assets/**/*"))
    body = {"definition": BUYERS["definition"], "compare_with": "by_hand"}
    answer = api("POST", "audiences/preview", body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["size"] == 1 and found["identifiers"]["email"] == 1.0
    assert found["sample"][0]["external_ids"]["email"] == ["***"]
    assert "ann@example.com" not in answer.text
    assert sorted(api.place.root.glob("assets/**/*")) == before
    wrong = api("POST", "audiences/preview", {"definition": {"query": "event("}})
    assert wrong.status_code == 400 and wrong.json()["error"]["code"] == "validation_error"


def test_dagster_is_told(api: Api, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, httpserver.url_for("/").rstrip("/"))
    loaded = {
        "__typename": "WorkspaceLocationEntry",
        "locationOrLoadError": {"__typename": "RepositoryLocation"},
    }
    answers = [
        {"data": {"reloadRepositoryLocation": loaded}},
        {"data": {"reloadRepositoryLocation": {"__typename": "ReloadNotSupported"}}},
        {"errors": []},
    ]
    for answer in answers:
        httpserver.expect_ordered_request("/graphql", method="POST").respond_with_json(answer)
    told = [api("PATCH", "audiences/by_hand", {"name": f"n{n}"}).json()["reload"] for n in range(3)]
    request = httpserver.log[0][0].get_json()
    assert request["variables"] == {"location": "main"}
    assert [one["done"] for one in told] == [True, False, False]
    assert "ReloadNotSupported" in told[1]["why"]
    monkeypatch.delenv(URL)
    unset = api("PATCH", "audiences/by_hand", {"name": "n"}).json()["reload"]
    assert unset["done"] is False and URL in unset["why"]
