"""The simulators themselves: that they fail as told, keep what they took, and can be asked."""

import json
import subprocess
import sys
import time

import httpx
import pytest

from personas_dagster.simulators import SIMULATORS, Answer, Switchboard, simulator
from personas_dagster.simulators.serving import Served

BODY = {"attributes": [{"external_id": "u1", "vip": True}]}


def post(url: str, key: str = "k", **more: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{url}/users/track", json=BODY, headers=headers, **more)  # type: ignore[arg-type]


@pytest.fixture
def account(served: Served) -> tuple[object, str]:
    made = simulator("braze", key="k")
    return made, served.add("braze", made)


def test_fixed_sequences_come_before_chance() -> None:
    faults = Switchboard(seed=1, chances={"throttle": 1.0})
    faults.next("error", None, "reset")
    assert [faults.draw() for _ in range(4)] == ["error", None, "reset", "throttle"]
    faults.clear()
    assert faults.draw() is None


def test_chances_are_those_that_were_set_and_repeat_by_seed() -> None:
    def draws(seed: int) -> list[object]:
        faults = Switchboard(seed=seed, chances={"throttle": 0.2, "lost": 0.2, "rows": 0.5})
        return [faults.draw() for _ in range(2_000)]

    found = draws(3)
    assert found == draws(3) != draws(4)
    assert 300 < found.count("throttle") < 500 and 300 < found.count("lost") < 500
    assert "rows" not in found


@pytest.mark.parametrize(("fault", "kept"), [("reset", False), ("lost", True)])
def test_cut_connections(account: tuple, fault: str, kept: bool) -> None:  # type: ignore[type-arg]
    made, url = account
    made.faults.next(fault)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        post(url)
    assert made.members("vip") == ({"u1"} if kept else set())
    assert made.requests[0].status == 0 and made.requests[0].fault == fault


def test_slow_answers_are_taken(account: tuple) -> None:  # type: ignore[type-arg]
    made, url = account
    made.faults.next("timeout")
    with pytest.raises(httpx.ReadTimeout):
        post(url, timeout=0.1)
    assert made.members("vip") == {"u1"}


def test_refusals_keep_nothing(account: tuple) -> None:  # type: ignore[type-arg]
    made, url = account
    made.faults.next("throttle", "error", "unauthorized", Answer(418))
    assert [post(url).status_code // 100 for _ in range(4)] == [4, 5, 4, 4]
    assert post(url, key="another").status_code == 401
    assert not made.people
    assert post(url).status_code == 201


def test_requests_are_logged_with_their_times(account: tuple) -> None:  # type: ignore[type-arg]
    made, url = account
    made.keeps_bodies = False
    before = time.monotonic()
    for _ in range(3):
        post(url)
    times = [request.seen.at for request in made.requests]
    assert before <= times[0] <= times[1] <= times[2] <= time.monotonic()
    assert {request.rows for request in made.requests} == {1}
    assert not any(request.seen.body for request in made.requests)


def test_can_be_asked_and_told_over_http(account: tuple) -> None:  # type: ignore[type-arg]
    made, url = account
    post(url)
    state = httpx.get(f"{url}/_simulator").json()
    assert state["type"] == "braze" and state["requests"] == 1
    assert state["people"] == {"u1": {"external_id": "u1", "vip": True}}
    httpx.post(f"{url}/_simulator", json={"chances": {"throttle": 1.0}, "next": ["error"]})
    assert [post(url).status_code // 100 for _ in range(2)] == [5, 4]
    httpx.post(f"{url}/_simulator", json={"clear": True})
    assert post(url).status_code == 201


def test_another_name_is_nobody(served: Served) -> None:
    assert httpx.get(f"{served.url}/nobody/users").status_code == 404
    assert httpx.get(served.url).status_code == 404


def test_all_can_be_made_and_know_what_they_are() -> None:
    for type in SIMULATORS:
        made = simulator(type, key="k")
        assert made.type == type and made.state()["people"] == {}
        json.dumps(made.state())


def test_runs_as_a_process() -> None:
    command = [sys.executable, "-m", "personas_dagster.simulators", "--port", "0", "braze"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            url = line.split()[1]
            assert post(url, key="simulated-key").status_code == 201
        finally:
            process.kill()  # whoever runs the tests may have made it deaf to politer signals


def test_importing_them_needs_no_server() -> None:
    code = (
        "import sys, personas_dagster.destinations, personas_dagster.simulators as s;"
        "[s.simulator(t) for t in s.SIMULATORS];"
        "assert not {'uvicorn', 'starlette'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
