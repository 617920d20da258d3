"""The check that values which stand are right: told in the UI, and to people."""

from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from personas_dagster.assets import computed
from personas_dagster.assets.keys import Names
from personas_dagster.traits.standing import Check
from tests.place import Place

WRONG = Check(170, [("spent", "p1"), ("spent", "p2")])


@pytest.mark.parametrize(
    ("check", "passed"), [(None, True), (Check(170, []), True), (WRONG, False)]
)
def test_check_result(place: Place, check: Check | None, passed: bool) -> None:
    result = computed._checked(Names(place.space).key("custom_traits"), check, 3)
    assert (result.passed, result.severity) == (passed, dg.AssetCheckSeverity.ERROR)


def test_people_are_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(computed, "tell_all", lambda urls, **said: told.append(said["body"]))
    place.write("sensors/alerts.yaml", "urls: [{env: ALERT_URL}]\n")
    context: Any = SimpleNamespace(run=SimpleNamespace(run_id="r1"))
    computed._alert(context, place.space, WRONG)
    assert "2 values of 170 profiles" in told[0]
    assert "spent of p1" in told[0]
