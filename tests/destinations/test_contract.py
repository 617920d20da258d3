"""The contract of `contract.py`, on every destination of the catalogue."""

import contract
import pytest
from contract import Subject

from personas_dagster.destinations import DESTINATIONS
from personas_dagster.simulators import SIMULATORS
from personas_dagster.simulators.serving import Served

# requests per second that shared/spec/activation.md fixes
RATES = {
    "braze": 100,
    "facebook_custom_audiences": 1,  # 5,000 an hour
    "google_ads": 5,  # 300 a minute
    "customerio": 30,
    "hubspot": 10,  # 5 objects, two calls each
    "intercom": 8,
    "iterable": 500,
    "mailchimp": 10,
    "marketo": 5,
    "marketo_static_lists": 5,
    "sendgrid": 100,
    "sendgrid_lists": 100,
    "zendesk": 50,
}


def test_every_destination_has_a_simulator() -> None:
    assert SIMULATORS.keys() == DESTINATIONS.keys()


@pytest.fixture(params=DESTINATIONS)
def subject(request: pytest.FixtureRequest, served: Served) -> Subject:
    return Subject(request.param, served)


def test_golden_payloads(subject: Subject, request: pytest.FixtureRequest) -> None:
    contract.sends_golden_payloads(
        subject, update=bool(request.config.getoption("--update", default=False))
    )


@pytest.mark.parametrize("clause", contract.CLAUSES, ids=lambda clause: clause.__name__)
def test_contract(subject: Subject, clause: object) -> None:
    clause(subject)  # type: ignore[operator]


@pytest.mark.parametrize("type", sorted(RATES.keys() & DESTINATIONS.keys()))
def test_rates_are_those_of_the_spec(type: str, served: Served) -> None:
    _, opened = Subject(type, served).account()
    assert opened().abilities.requests_per_second == RATES[type]
