"""The description of what a token opens is true: schemathesis finds no 500, nothing undeclared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import httpx
import pytest

from personas_dagster import access, refresh
from tests.place import NOW, Place
from tests.serving.described import is_as_described
from tests.serving.server_process import ServerProcess
from tests.serving.serving_place import web_place

# Which spaces, keys and identifiers there are, and which queries hold, OpenAPI cannot describe.
UNKNOWN = "--exclude-checks=positive_data_acceptance,negative_data_rejection"
PERSON = {
    "type": "identify", "userId": "u1", "traits": {"email": "ann@example.com"},
    "receivedAt": "2026-02-28T00:00:00Z",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["profiles", "definitions", "deletion"])
def test_answers_to_a_token_are_as_described(new_place: Callable[[], Place], tag: str) -> None:
    place = web_place(new_place)
    path = place.root / "resources/spaces/main.yaml"
    path.write_text(path.read_text() + "profile_api: {rate: 100000}\n")
    space = place.refresh(PERSON)
    refresh.keep_profiles(space)
    _, token = access.create(space.state, "main", "all", roles=["admin"], now=NOW)
    settings = place.write(
        "schemathesis.toml",
        '[parameters]\n"path.space" = "main"\n"path.identifier" = ["user_id:u1", "nobody"]\n'
        '"path.who" = ["user_id:u1", "nobody", "email:no@x.com", "group_id:1"]\n',
    )
    with ServerProcess(place.root) as server:
        run = ("--auth", f"{token}:", "--include-tag", tag, UNKNOWN)
        is_as_described(server, *run, globally=("--config-file", str(settings)))


@pytest.mark.slow
def test_several_workers_answer_alike(new_place: Callable[[], Place]) -> None:
    place = web_place(new_place)
    path = place.root / "resources/spaces/main.yaml"
    path.write_text(path.read_text() + "profile_api: {rate: 20}\n")
    space = place.refresh(PERSON)
    refresh.keep_profiles(space)
    _, token = access.create(space.state, "main", "all", roles=["read"], now=NOW)
    with ServerProcess(place.root, workers=2) as server:
        traits = f"{server.url}/v1/spaces/main/collections/users/profiles/user_id:u1/traits"
        statuses = Counter(httpx.get(traits, auth=(token, "")).status_code for _ in range(60))
    assert set(statuses) <= {200, 429} and statuses[200] >= 20
