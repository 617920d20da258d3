"""Simulators: the tools of the catalogue, as far as a sync can tell, with no account at any.

Each is an HTTP application that authenticates, validates, limits and fails as the vendor
documents, and keeps what the tool would. The engine and the destinations never import these.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from personas_dagster.simulators.base import Simulator
from personas_dagster.simulators.faults import Answer, Seen, Switchboard

__all__ = ["SIMULATORS", "Answer", "Seen", "Simulator", "Switchboard", "simulator"]

# type of destination -> module and class
SIMULATORS: dict[str, tuple[str, str]] = {
    "braze": ("braze", "Braze"),
    "customerio": ("customerio", "CustomerIo"),
    "iterable": ("iterable", "Iterable"),
    "iterable_lists": ("iterable", "IterableLists"),
    "mixpanel": ("mixpanel", "Mixpanel"),
    "amplitude": ("amplitude", "Amplitude"),
    "sendgrid": ("sendgrid", "SendGrid"),
    "sendgrid_lists": ("sendgrid", "SendGridLists"),
    "hubspot": ("hubspot", "HubSpot"),
    "hubspot_lists": ("hubspot", "HubSpotLists"),
    "intercom": ("intercom", "Intercom"),
    "mailchimp": ("mailchimp", "Mailchimp"),
    "marketo": ("marketo", "Marketo"),
    "marketo_static_lists": ("marketo", "MarketoStaticLists"),
    "zendesk": ("zendesk", "Zendesk"),
    "facebook_custom_audiences": ("facebook", "FacebookCustomAudiences"),
    "google_ads": ("google", "GoogleAds"),
    "kinesis": ("kinesis", "Kinesis"),
    "webhook": ("webhook", "Webhook"),
}


def simulator(type: str, *, key: str = "simulated-key", seed: int = 0) -> Simulator:
    """An empty account at a tool.

    >>> simulator("webhook").people
    {}
    """
    module, name = SIMULATORS[type]
    made: Callable[..., Simulator] = getattr(import_module(f"{__name__}.{module}"), name)
    return made(key=key, seed=seed)
