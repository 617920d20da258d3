"""Runs of a Dagster instance on disk, at tools that repeat each secret: nothing keeps one."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from personas_dagster.activation import sync
from personas_dagster.activation.retries import Retries
from personas_dagster.definitions import build
from personas_dagster.errors import PersonasError
from personas_dagster.samples.receiver import Receiver
from personas_dagster.simulators import Answer, Seen, simulator
from personas_dagster.simulators.serving import Served
from tests.rim.project import ROOT, Project, orders, reason
from tests.written import forms, found, written

MARKER, CANARY = "marker-3c5e8a17", "canary-6f2d"
FORMS = forms(MARKER)
TOOLS = {"webhook": "webhook", "lists": "iterable_lists", "mail": "mailchimp"}
SECRETS = "secrets"
RICH = "event('Order Completed').sum(property('revenue')) >= 100"
ALERT_KINDS = {"failure_alerts": dg.DagsterEventType.RUN_FAILURE,
               "delivery_alerts": dg.DagsterEventType.RUN_SUCCESS}  # fmt: skip

pytestmark = pytest.mark.slow


def echo(status: int, seen: Seen) -> Answer:
    """A tool that repeats what it was sent, key and all, as its reason."""
    told = {"path": seen.target, **seen.headers, "body": seen.body.decode(errors="replace")}
    text = {"detail": f"{CANARY} bad key {MARKER}", "message": CANARY, "error": told}
    return Answer(status, json.dumps(text).encode(), {"x-request-id": MARKER})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """An audience that goes to three tools, whose secrets come from the environment and a file."""
    monkeypatch.setattr(sync, "Retries", partial(Retries, initial=0.001))
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    (tmp_path / "project").mkdir()
    made = Project(tmp_path / "project")
    made.instance.dispose()
    for path in (made.root / "sensors/connections").iterdir():
        path.unlink()
    made.write("assets/audiences/big_spenders.yaml", f'query: "{RICH}"\n')
    with dg.DagsterInstance.from_config(str(home)) as instance:
        made.instance = instance
        yield made


@pytest.fixture
def alerts(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with Receiver() as made:
        address = f"{made.url.replace('http://', 'json://')}/{MARKER}"
        monkeypatch.setenv("GOOD_ALERTS", address)
        monkeypatch.setenv("BAD_ALERTS", f"json://someone:{MARKER}@127.0.0.1:9/{MARKER}")
        project.write("sensors/alerts.yaml", "urls: [{env: GOOD_ALERTS}, {env: BAD_ALERTS}]\n"
                      "when: every_attempt\nsize: 0.01\nat_least: 1\n")  # fmt: skip
        yield made


@pytest.fixture
def accounts(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The tools, by the name of their destination."""
    (tmp_path / SECRETS).mkdir()
    with Served() as served:
        made = {name: simulator(kind, key=MARKER) for name, kind in TOOLS.items()}
        for name, account in made.items():
            settings = account.settings(served.add(name, account))
            declared = _hidden(settings, tmp_path / SECRETS, monkeypatch)
            project.write(f"resources/destinations/{name}.yaml",
                          json.dumps({"type": account.type, "settings": declared}))  # fmt: skip
            project.write(f"sensors/connections/to_{name}.yaml",
                          f"{{audience: big_spenders, destination: {name}}}")  # fmt: skip
        yield made


def _hidden(value: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Settings as a person writes them: secrets by reference, to a file or a variable in turn."""
    if isinstance(value, dict):
        return {name: _hidden(part, folder, monkeypatch) for name, part in value.items()}
    if not (isinstance(value, str) and MARKER in value):
        return value
    number = len(list(folder.iterdir()))
    file = folder / str(number)
    file.write_text(value)
    if number % 2:
        return {"file": str(file)}
    monkeypatch.setenv(f"SECRET_{number}", value)
    return {"env": f"SECRET_{number}"}


def told(project: Project, run_id: str) -> None:
    """The sensors that alert look at a run."""
    definitions = build(project.root, "development")
    run = project.instance.get_run_by_id(run_id)
    assert run is not None
    for name, kind in ALERT_KINDS.items():
        for entry in project.instance.all_logs(run_id, of_type=kind):
            context = dg.build_run_status_sensor_context(
                sensor_name=name, dagster_instance=project.instance, dagster_run=run,
                dagster_event=entry.dagster_event)  # fmt: skip
            is_failure = kind == dg.DagsterEventType.RUN_FAILURE
            sensor = definitions.resolve_sensor_def(name)
            try:
                sensor(context.for_run_failure() if is_failure else context)
            except PersonasError:
                logging.getLogger("ticks").exception("the tick failed")


def test_no_secret_is_kept(
    project: Project,
    accounts: Any,
    alerts: Receiver,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    people = [{**one, "context": {"traits": {"email": f"{n}@example.com"}}}
              for n, one in enumerate(orders(range(6), revenue=500))]  # fmt: skip
    project.put(*people, name="rich.jsonl")
    run: Callable[..., Any] = partial(project.run, log_level="DEBUG")
    assert not reason(run())
    shown: list[str] = []
    for fault in (*(partial(echo, status) for status in (401, 500, 400)), None):
        for name, account in accounts.items():
            account.faults.clear()
            account.faults.next(*[fault] * 60 if fault else [])
            result = run(f"sync_{name}")
            shown.append(reason(result))
            told(project, result.run_id)
    assert [text for text in shown[:3] if "credentials" in text] == shown[:3]
    shown += [json.dumps(message) for message in alerts.messages]
    failed = [
        one["message"] for one in alerts.messages if one["title"].endswith("sync_mail failed")
    ]
    assert any("HTTP 500" in text and "Affected" in text for text in failed)
    shown += capfd.readouterr()
    shown += [
        caplog.handler.format(record) + repr(record.__dict__)
        for record in caplog.records
        if not record.name.startswith("personas_dagster.samples")  # the channel's own log
    ]
    project.instance.dispose()

    assert [text[:500] for text in shown if any(form in text for form in FORMS)] == []
    places = found(written(tmp_path), FORMS)
    assert places and {where.split("/")[0] for where in places} == {SECRETS}
    # what the tools said beside their secrets did arrive in all these places
    assert any("alert URL 2 of sensors/alerts.yaml did not take" in text for text in shown)
    assert sum(CANARY in text for text in shown) > 3 and len(alerts.messages) > 3
    seen = " ".join(found(written(tmp_path), [CANARY]))
    for place in ("state.db: audit", "lake/ledger", "event_logs", ".err"):
        assert place in seen, seen
