"""No secret is written anywhere, whatever the tool says: markers, and a scan of everything."""

import json
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from world import World

from personas_dagster.activation.destination import Destination
from personas_dagster.destinations import open_destination
from personas_dagster.errors import PersonasError
from personas_dagster.simulators import SIMULATORS, Answer, Seen, Simulator, simulator
from personas_dagster.simulators.serving import Served
from tests.written import forms, found, written

MARKER = "marker-9b1d44e0"
FORMS = forms(MARKER)
MANY = 60  # requests
QUICK = {"braze", "webhook"}
KINDS = [
    pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow)
    for kind in sorted(SIMULATORS)
]


def secret(value: Any) -> Any:
    """Settings as the platform hands them out: what holds the marker is a secret."""
    if isinstance(value, dict):
        return {key: secret(part) for key, part in value.items()}
    return SecretStr(value) if isinstance(value, str) and MARKER in value else value


def echo(status: int) -> Callable[[Seen], Answer]:
    """A tool that repeats what it was sent, key and all, as its reason."""

    def answer(seen: Seen) -> Answer:
        told = {"path": seen.target, **seen.headers, "body": seen.body.decode(errors="replace")}
        text = json.dumps({"error": told, "message": f"bad key {MARKER}"}).encode()
        return Answer(status, text, {"x-request-id": MARKER})

    return answer


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as made:
        yield made


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


@pytest.mark.parametrize("kind", KINDS)
def test_not_written_anywhere(
    kind: str,
    served: Served,
    world: World,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    account = simulator(kind, key=MARKER)
    settings = secret(account.settings(served.add(kind, account)))
    for n in range(3):
        world.person(f"p{n}", user_id=f"user-{n}", email=f"{n}@example.com")
    world.members["buyers"] = set(world.people)
    shown = _failures(world, kind, settings, account)
    good = open_destination(kind, settings)
    shown += [repr(good), repr(world.sync(tool=good, dry_run=True))]
    account.faults.clear()
    report = world.sync(tool=good, force=True, resync=["c"])
    assert report.confirmed == 3, "the tool took it in the end, so that the secrets were right"
    shown += [repr(report), repr(report.counts), repr(world.ledger()), repr(world.audit())]
    shown += [record.getMessage() + repr(record.__dict__) for record in caplog.records]
    shown += capfd.readouterr()
    assert [text[:2_000] for text in shown if any(form in text for form in FORMS)] == []
    texts = list(written(tmp_path))
    sent = found(texts, ["user-1", "1@example.com"])  # by whichever the tool knows people
    assert sent and not found(texts, FORMS)


def _failures(world: World, kind: str, settings: dict[str, Any], account: Simulator) -> list[str]:
    """What people are shown of syncs that fail, each in another way."""
    address = "url" if "url" in settings else "base_url"
    nobody = secret(f"http://127.0.0.1:9/{MARKER}") if address == "url" else "http://127.0.0.1:9"
    faults: list[list[Any]] = [
        [echo(401)], [echo(400)], [echo(500)], [echo(429)], ["reset"], ["lost"], ["timeout"],
    ]  # fmt: skip
    account.faults.delay = 0.5
    shown = []
    for fault in faults:
        account.faults.clear()
        account.faults.next(*(fault * MANY))
        shown += _shown(world, lambda: open_destination(kind, {**settings, "timeout": 0.2}))
    shown += _shown(world, lambda: open_destination(kind, {**settings, address: nobody}))
    for bad in (f"ftp://{MARKER}@example.com", f"https://example.com:{MARKER}/"):
        value = SecretStr(bad) if address == "url" else bad
        shown += _shown(world, lambda bad=value: open_destination(kind, {**settings, address: bad}))
    account.faults.clear()
    return shown


def _shown(world: World, make: Callable[[], Destination]) -> list[str]:
    try:
        report = world.sync(tool=make(), force=True, resync=["c"])
    except PersonasError as error:
        return ["".join(traceback.format_exception(error)), repr(error)]
    return [repr(report), repr(report.why)]
