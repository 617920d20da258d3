"""What surrounds every request: ids, errors, logs, numbers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from personas_dagster.errors import StateUnavailable
from personas_dagster.serving import logs
from personas_dagster.serving.app import build

SECRET = "ann@example.com"


@pytest.fixture
def app() -> FastAPI:
    app = build({}, metrics_token="let-me-see")

    @app.get("/people/{email}")
    def people(email: str) -> None:
        raise ValueError(f"no {email} here")

    @app.get("/away")
    def away() -> None:
        raise StateUnavailable(f"state database: {SECRET}")

    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(form.format(record))

    logger = logging.getLogger("personas")
    before = (logger.handlers, logger.level, logger.propagate)
    logs.configure()
    form = logger.handlers[0].formatter
    assert form is not None
    logger.handlers = [Kept()]
    yield found
    logger.handlers, logger.level, logger.propagate = before


def test_every_answer_has_an_id_of_its_own(client: TestClient) -> None:
    ids = [client.get(path).headers["Request-Id"] for path in ("/healthz", "/nowhere", "/away")]
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PUT", "/healthz", 405, "method_not_allowed"),
        ("GET", "/away", 503, "unavailable"),
        ("GET", "/people/x", 500, "internal_error"),
        ("GET", "/metrics", 401, "authentication_error"),
    ],
)
def test_errors_have_one_form(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["message"]
    assert SECRET not in answer.text


def test_a_log_line_has_the_route_and_never_its_values(
    client: TestClient, lines: list[str]
) -> None:
    answer = client.get(f"/people/{SECRET}")
    told = [json.loads(line) for line in lines]
    request = next(one for one in told if one["event"] == "request")
    assert request["request_id"] == answer.headers["Request-Id"]
    assert (request["method"], request["route"], request["status"]) == (
        "GET",
        "/people/{email}",
        500,
    )
    failed = next(one for one in told if one["event"] == "failed")
    assert failed["exception"] == "ValueError"
    assert any("people" in frame for frame in failed["frames"])
    assert SECRET not in "".join(lines)


def test_metrics_need_their_token(client: TestClient) -> None:
    client.get("/healthz")
    assert client.get("/metrics", auth=("wrong", "")).status_code == 401
    text = client.get("/metrics", headers={"Authorization": "Bearer let-me-see"}).text
    assert 'personas_http_requests_total{method="GET",route="/healthz",status="200"}' in text
    assert client.get("/metrics", auth=("let-me-see", "")).text.startswith("# HELP")


def test_without_a_token_there_are_no_metrics_for_anybody() -> None:
    with TestClient(build({})) as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", auth=("", "")).status_code == 401


def test_readiness_says_what_is_missing(app: FastAPI, client: TestClient) -> None:
    assert client.get("/readyz").json() == {"status": "ok"}
    app.state.readiness.append(lambda: "the disk is full")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "the disk is full"
    assert client.get("/healthz").status_code == 200
