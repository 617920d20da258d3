"""No route answers without its key or token, but for those that are listed here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from personas_dagster import access
from personas_dagster.serving.app import build
from personas_dagster.serving.server import open_spaces
from tests.place import NOW, SPACE, Place
from tests.serving.serving_place import ENV, web_place

OPEN = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
}


def routes(found: Any) -> Iterator[tuple[str, str]]:
    """Every method and path of an application, its routers' routers included."""
    for route in found.routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from routes(inner)
        else:
            for method in route.methods:
                yield method, re.sub(r":\w+}", "}", route.path)


def test_every_route_needs_its_key_or_token(
    new_place: Callable[[], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    app = build(open_spaces(web_place(new_place).root))
    described = {
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }
    table = {(method, path) for method, path in routes(app) if method != "HEAD"}
    assert described == table - {("GET", "/openapi.json")}
    assert len(table) > 20
    statuses = {}
    with TestClient(app) as client:
        for method, path in table - OPEN:
            shown = re.sub(r"\{(\w+)[^}]*\}", "main", path)
            for auth in (None, ("unknown", ""), ("", "")):
                answer = client.request(method, shown, json={"batch": []}, auth=auth)
                statuses[method, path, auth] = answer.status_code
        for method, path in OPEN:
            assert client.request(method, path).status_code == 200
    assert {key: status for key, status in statuses.items() if status != 401} == {}


def test_no_route_answers_for_another_space(
    new_place: Callable[[], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    place = web_place(new_place)
    other = SPACE.replace("default: true", "default: false").replace(".personas/", ".personas/b/")
    place.write("resources/spaces/other.yaml", other)
    opened = open_spaces(place.root)
    _, token = access.create(opened["main"].state, "main", "all", roles=["admin"], now=NOW)
    app = build(opened)
    asked = {(method, path) for method, path in routes(app) if "{space}" in path}
    assert len(asked) > 15
    statuses = {}
    with TestClient(app) as client:
        for method, path in asked - {("HEAD", path) for _, path in asked}:
            shown = re.sub(r"\{(\w+)[^}]*\}", "user_id:1", path.replace("{space}", "other"))
            answer = client.request(method, shown, json={}, auth=(token, ""))
            statuses[method, path] = answer.status_code
    assert {key: status for key, status in statuses.items() if status != 401} == {}
