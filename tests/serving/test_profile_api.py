"""The Profile API, as Segment documents it, on both databases."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from personas_dagster import access, refresh
from personas_dagster.serving import authority
from personas_dagster.serving.app import build
from personas_dagster.spaces import Space
from tests.place import Place
from tests.profiles.conftest import KINDS, on_database, shop

__all__ = ["shop"]

NOW = dt.datetime(2026, 1, 20, tzinfo=dt.UTC)


def day(number: float) -> str:
    return (dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=number)).isoformat()


MESSAGES: list[dict[str, Any]] = [
    {
        "type": "identify", "messageId": "m1", "userId": "u1", "anonymousId": "a1",
        "receivedAt": day(2),
        "traits": {"email": "Ann@Example.com", "phone": "0151 1234567", "city": "Ulm", "n": 12.50},
        "context": {"groupId": "g1"},
    },
    {"type": "identify", "messageId": "m2", "anonymousId": "a2", "receivedAt": day(3)},
    {
        "type": "track", "messageId": "m3", "event": "Order", "anonymousId": "a2",
        "receivedAt": day(4), "properties": {"revenue": 5},
    },
    # Joins a2 to u1: the profile of a2 becomes a child.
    {
        "type": "identify", "messageId": "m4", "userId": "u1", "anonymousId": "a2",
        "receivedAt": day(8),
    },
    *(
        {
            "type": "track", "messageId": f"o{n}", "event": name, "userId": "u1",
            "receivedAt": day(9 + n), "properties": {"n": n, "contact": "ann@example.com"},
        }
        for n, name in enumerate(("Order", "Refund", "Order", "Visit, long"))
    ),
    {"type": "page", "messageId": "p1", "name": "Home", "userId": "u1", "receivedAt": day(14)},
    {"type": "group", "messageId": "g", "userId": "u1", "groupId": "g2", "receivedAt": day(15),
     "traits": {"size": 3}},
]  # fmt: skip


class Api:
    """A client of one space, with a token."""

    def __init__(self, client: TestClient, space: Space, now: dt.datetime = NOW) -> None:
        self.client, self.space = client, space
        self.tokens = {
            name: access.create(
                space.state, space.name, name, roles=[role], has_pii=name == "pii", now=now
            )[1]
            for name, role in (("pii", "read"), ("plain", "read"), ("sync", "sync"))
        }

    def get(
        self,
        what: str,
        who: str = "user_id:u1",
        token: str = "pii",
        collection: str = "users",
        root: str = "spaces",
        **query: Any,
    ) -> httpx.Response:
        path = f"/v1/{root}/main/collections/{collection}/profiles/{who}/{what}"
        text = self.tokens.get(token, token)
        return self.client.get(path, params=query, auth=(text, ""))


@pytest.fixture(params=KINDS, scope="module")
def api(request: pytest.FixtureRequest, new_place: Callable[[], Place]) -> Iterator[Api]:
    place = new_place()
    with on_database(place, request.param):
        space = filled(place)
        app = build({"main": space}, now=lambda: NOW)
        with TestClient(app, raise_server_exceptions=False) as client:
            yield Api(client, space)


def filled(place: Place) -> Space:
    """The messages above in two refreshes, in the profile store."""
    path = place.root / "resources/spaces/main.yaml"
    path.write_text(path.read_text() + "profile_api: {rate: 100000}\n")
    place.define(
        {
            "audiences/buyers": "event('Order').count() >= 1",
            "audiences/recent": "event('Order').within(1 days).count() >= 1",
            "computed_traits/orders": "event('Order').count()",
        }
    )
    space = place.refresh(*MESSAGES[:4], as_of=dt.datetime(2026, 1, 5, 1, tzinfo=dt.UTC))
    refresh.keep_profiles(space)
    space = place.refresh(*MESSAGES[4:], as_of=NOW)
    refresh.keep_profiles(space)
    return space


def test_stale_values_are_shown_as_such(api: Api) -> None:
    assert "Personas-Stale" not in api.get("traits").headers
    late = build({"main": api.space}, now=lambda: NOW + dt.timedelta(hours=2))
    with TestClient(late, raise_server_exceptions=False) as client:
        asked = Api.__new__(Api)
        asked.client, asked.space, asked.tokens = client, api.space, api.tokens
        answer = asked.get("traits", verbose=True)
        assert answer.headers["Personas-Stale"] == "buyers, orders, recent"
        traits = answer.json()["traits"]
        assert {key for key, one in traits.items() if "stale" in one} == {
            "buyers", "orders", "recent",
        }  # fmt: skip
        assert traits["buyers"]["stale"] == [
            "it is as of 2026-01-20 00:00 UTC, and due at `0 * * * *`"
        ]
        assert asked.get("traits", include="n,orders").headers["Personas-Stale"] == "orders"
        assert "Personas-Stale" not in asked.get("traits", include="city").headers


def test_traits(api: Api) -> None:
    answer = api.get("traits")
    assert answer.status_code == 200
    assert answer.json() == {
        "traits": {
            "buyers": True,
            "city": "Ulm",
            "email": "Ann@Example.com",
            "n": 12.5,
            "orders": 3,
            "phone": "0151 1234567",
            "recent": False,
        },
        "cursor": {"url": "", "has_more": False, "next": "", "limit": 10},
    }
    assert (
        answer.headers["Request-Id"] and answer.headers["Personas-As-Of"] == "2026-01-20T00:00:00Z"
    )


def test_every_way_to_the_same_profile(api: Api) -> None:
    expected = api.get("traits").json()["traits"]
    root = api.space.profiles.rows("SELECT profile_id FROM profiles WHERE collection = 'users'", {})
    child = api.space.profiles.rows("SELECT child_id FROM parents", {})
    ways = ["anonymous_id:a1", "anonymous_id:a2", "email:ann@example.com", "email:ANN@Example.com "]
    for who in (*ways, root[0][0], child[0][0]):
        assert api.get("traits", who).json()["traits"] == expected, who
    assert api.get("traits", root="namespaces").json()["traits"] == expected


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ({"include": "city, orders"}, ["city", "orders"]),
        ({"include": "nothing"}, []),
        ({"class": "audience"}, ["buyers", "recent"]),
        ({"class": "computed_trait"}, ["orders"]),
        ({"class": "custom_trait"}, ["city", "email", "n", "phone"]),
        ({"class": "sql_trait"}, []),
        ({"class": "custom_trait", "include": "city"}, ["city"]),
    ],
)
def test_some_traits(api: Api, query: dict[str, str], keys: list[str]) -> None:
    assert list(api.get("traits", **query).json()["traits"]) == keys


def test_verbose_traits(api: Api) -> None:
    traits = api.get("traits", verbose="true", include="city,orders").json()["traits"]
    assert traits == {
        "city": {"value": "Ulm", "source_id": "files", "updated_at": "2026-01-03T00:00:00.000000Z"},
        "orders": {"value": 3, "source_id": None, "updated_at": "2026-01-20T00:00:00.000000Z"},
    }


@pytest.mark.parametrize(
    ("what", "query"),
    [
        ("traits", {"limit": 2}),
        ("traits", {"limit": 1, "class": "custom_trait", "verbose": "true"}),
        ("external_ids", {"limit": 1}),
        ("external_ids", {"limit": 1, "include": "anonymous_id"}),
        ("events", {"limit": 2}),
        ("events", {"limit": 1, "sort": "asc", "exclude": "Refund"}),
        ("links", {"limit": 1}),
    ],
)
def test_pages_add_up(api: Api, what: str, query: dict[str, Any]) -> None:
    whole = {**query, "limit": 20}
    field = "traits" if what == "traits" else "data"
    expected = api.get(what, **whole).json()[field]
    found: list[Any] = []
    answer = api.get(what, **query)
    while True:
        body = answer.json()
        page = body[field]
        found += page.items() if isinstance(page, dict) else page
        cursor = body["cursor"]
        assert cursor["limit"] == query["limit"] and len(page) <= query["limit"]
        assert cursor["has_more"] == bool(cursor["next"]) == bool(cursor["url"])
        if not cursor["has_more"]:
            break
        assert "u1" not in cursor["url"]
        answer = api.client.get(cursor["url"], auth=(api.tokens["pii"], ""))
    assert len(found) > query["limit"]
    assert found == (list(expected.items()) if isinstance(expected, dict) else expected)


def test_external_ids(api: Api) -> None:
    data = api.get("external_ids").json()["data"]
    assert [(one["type"], one["id"]) for one in data] == [
        ("anonymous_id", "a1"),
        ("email", "ann@example.com"),
        ("user_id", "u1"),
        ("anonymous_id", "a2"),
    ]
    assert data[1] == {
        "source_id": "files",
        "collection": "users",
        "id": "ann@example.com",
        "type": "email",
        "created_at": "2026-01-03T00:00:00.000000Z",
        "encoding": "none",
        "first_message_id": "m1",
    }
    only = api.get("external_ids", include="user_id,email").json()["data"]
    assert {one["type"] for one in only} == {"user_id", "email"}


def test_events(api: Api) -> None:
    data = api.get("events").json()["data"]
    # m3 is older than 14 days at the last refresh.
    assert [one["message_id"] for one in data] == ["p1", "o3", "o2", "o1", "o0"]
    (profile,) = api.space.profiles.rows(
        "SELECT profile_id FROM identifiers WHERE value = 'u1'", {}
    )
    assert data[-1] == {
        "external_ids": [
            {"collection": "users", "type": "user_id", "id": "u1", "encoding": "none"}
        ],
        "context": {},
        "type": "track",
        "message_id": "o0",
        "source_id": "files",
        "timestamp": "2026-01-10T00:00:00.000000Z",
        "properties": {"n": 0, "contact": "ann@example.com"},
        "event": "Order",
        "related": {"users": profile[0]},
    }


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({"include": "Order"}, ["o2", "o0"]),
        ({"include": "Order,Refund", "sort": "asc"}, ["o0", "o1", "o2"]),
        ({"exclude": "Order,Page Viewed"}, ["o3", "o1"]),
        ({"start": "2026-01-12"}, ["p1", "o3", "o2"]),
        ({"end": "2026-01-12T00:00:00Z"}, ["o1", "o0"]),
        ({"start": "2026-01-11", "end": "2026-01-13T00:00:00+00:00"}, ["o2", "o1"]),
        ({"start": "2020-01-01", "limit": 1}, ["p1"]),
    ],
)
def test_some_events(api: Api, query: dict[str, Any], ids: list[str]) -> None:
    data = api.get("events", **query).json()["data"]
    assert [one["message_id"] for one in data] == ids


def test_metadata(api: Api) -> None:
    assert api.get("metadata").json() == {
        "metadata": {
            "created_at": "2026-01-03T00:00:00.000000Z",
            "updated_at": "2026-01-16T00:00:00.000000Z",
            "expires_at": None,
            "first_message_id": "m1",
            "first_source_id": "files",
            "last_message_id": "g",
            "last_source_id": "files",
        }
    }


def test_links_and_accounts(api: Api) -> None:
    data = api.get("links").json()["data"]
    assert {one["external_ids"][0]["id"] for one in data} == {"g1", "g2"}
    assert {one["to_collection"] for one in data} == {"accounts"}
    users = api.get("links", "group_id:g2", collection="accounts").json()["data"]
    assert users[0]["to_collection"] == "users"
    assert ("user_id", "u1") in [(one["type"], one["id"]) for one in users[0]["external_ids"]]
    traits = api.get("traits", "group_id:g2", collection="accounts").json()["traits"]
    assert traits == {"size": 3}


@pytest.mark.parametrize(
    "who", ["user_id:u2", "nothing", "user_id:", "email:x", ":", "%00", "a/b:c"]
)
@pytest.mark.parametrize("what", ["traits", "external_ids", "events", "metadata", "links"])
def test_nobody(api: Api, what: str, who: str) -> None:
    answer = api.get(what, who)
    assert answer.status_code == 404
    assert answer.json() == {"error": {"code": "not_found", "message": "Profile was not found."}}
    assert api.get(what, "user_id:u1", collection="accounts").status_code == 404


@pytest.mark.parametrize(
    ("what", "query"),
    [
        ("traits", {"limit": 0}),
        ("traits", {"limit": 201}),
        ("traits", {"limit": "x"}),
        ("traits", {"class": "trait"}),
        ("traits", {"verbose": "perhaps"}),
        ("traits", {"next": "&"}),
        ("external_ids", {"limit": 101}),
        ("external_ids", {"next": "eA=="}),
        ("events", {"sort": "up"}),
        ("events", {"start": "yesterday"}),
        ("events", {"next": "eA=="}),
        ("links", {"limit": 21}),
    ],
)
def test_wrong_parameters(api: Api, what: str, query: dict[str, Any]) -> None:
    answer = api.get(what, **query)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "validation_error"
    assert answer.json()["error"]["message"].startswith(next(iter(query)))


def test_unknown_collection(api: Api) -> None:
    assert api.get("traits", collection="people").json()["error"]["code"] == "validation_error"


@pytest.mark.parametrize("what", ["traits", "external_ids", "events"])
def test_personal_data_needs_pii(api: Api, what: str) -> None:
    raw, masked = (api.get(what, token=token, limit=20) for token in ("pii", "plain"))
    assert "ann@example.com" in raw.text.lower()
    assert "ann@" not in masked.text.lower() and "1234567" not in masked.text
    assert "***" in masked.text
    assert masked.json().keys() == raw.json().keys()


def test_who_may_ask(api: Api) -> None:
    assert api.get("traits", token="").status_code == 401
    wrong = api.get("traits", token="personas_x_y")
    assert wrong.status_code == 401
    assert wrong.json()["error"]["code"] == "authentication_error"
    assert wrong.headers["WWW-Authenticate"].startswith("Basic")
    refused = api.get("traits", token="sync")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_error")
    elsewhere = api.client.get(
        "/v1/spaces/other/collections/users/profiles/user_id:u1/traits",
        auth=(api.tokens["pii"], ""),
    )
    assert elsewhere.status_code == 401


def test_revoked_token_stops_at_once(api: Api) -> None:
    _, text = access.create(api.space.state, "main", "short", roles=["read"], now=NOW)
    assert api.get("traits", token=text).status_code == 200
    access.revoke(api.space.state, "main", "short", now=NOW)
    assert api.get("traits", token=text).status_code == 401


def test_no_cors(api: Api) -> None:
    path = "/v1/spaces/main/collections/users/profiles/user_id:u1/traits"
    headers = {"Origin": "https://shop.test", "Access-Control-Request-Method": "GET"}
    answers = [
        api.client.options(path, headers=headers),
        api.client.get(path, headers=headers, auth=(api.tokens["pii"], "")),
    ]
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.quiet
def test_rate_of_a_space(shop: Place) -> None:
    path = shop.root / "resources/spaces/main.yaml"
    path.write_text(path.read_text() + "profile_api: {rate: 3}\n")
    space = shop.refresh(*MESSAGES[:1], as_of=NOW)
    refresh.keep_profiles(space)
    with TestClient(build({"main": space})) as client:
        api = Api(client, space)
        answers = [api.get("metadata") for _ in range(5)]
        wrong = api.get("metadata", token="nobody")
    assert [one.status_code for one in answers[:3]] == [200, 200, 200]
    late = answers[3]
    assert (late.status_code, late.json()["error"]["code"]) == (429, "rate_limit_error")
    assert late.headers["Retry-After"] == "1"
    assert wrong.status_code == 401  # is not counted


def test_store_that_is_not_there(shop: Place) -> None:
    space = shop.refresh(*MESSAGES[:1], as_of=NOW)
    with TestClient(build({"main": space})) as client:
        answer = Api(client, space).get("traits")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


def test_what_is_kept_anew_is_served_at_once(shop: Place) -> None:
    space = shop.refresh(*MESSAGES[:1], as_of=NOW)
    refresh.keep_profiles(space)
    with TestClient(build({"main": space})) as client:
        api = Api(client, space)
        assert api.get("traits", include="city").json()["traits"] == {"city": "Ulm"}
        moved = {**MESSAGES[0], "messageId": "x", "receivedAt": day(9), "traits": {"city": "Rome"}}
        refresh.keep_profiles(shop.refresh(moved, as_of=NOW + dt.timedelta(hours=1)))
        assert api.get("traits", include="city").json()["traits"] == {"city": "Rome"}


def test_described_as_it_is(api: Api) -> None:
    paths = api.client.get("/openapi.json").json()["paths"]
    for root in ("spaces", "namespaces"):
        for what in ("traits", "external_ids", "events", "metadata", "links"):
            path = f"/v1/{root}/{{space}}/collections/{{collection}}/profiles/{{identifier}}/{what}"
            statuses = set(paths[path]["get"]["responses"])
            assert statuses == {"200", "400", "401", "403", "404", "429", "503"}


@pytest.mark.quiet
def test_workers_share_the_rate_of_a_space(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place.root / "resources/spaces/main.yaml"
    path.write_text(path.read_text() + "profile_api: {rate: 4}\n")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    workers = [authority._limiter(place.space) for _ in range(2)]
    taken = [one.try_acquire("main", blocking=False) for _ in range(4) for one in workers]
    assert sum(map(bool, taken)) == 4
