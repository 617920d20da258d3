"""Alerts to people, through Apprise: Slack, e-mail, webhooks, and whatever else it speaks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import stamina

from personas_dagster.errors import PersonasError, Unavailable
from personas_dagster.project import fields

_ATTEMPTS = 3


def tell_all(declared: Iterable[fields.Text], *, title: str, body: str) -> None:
    """Send one alert to every URL that is declared, also where another one cannot be read.

    PersonasError names those that did not take it.
    """
    urls, problems = [], []
    for url in declared:
        try:
            urls.append(fields.resolve(url))
        except PersonasError as error:
            problems.append(str(error))
    try:
        tell(urls, title=title, body=body)
    except PersonasError as error:
        problems.append(str(error))
    if problems:
        raise PersonasError("; ".join(problems))


def tell(urls: Sequence[str], *, title: str, body: str) -> None:
    """Send one alert to every URL, each up to three times.

    Raises Unavailable when one of them did not take it; the others have it then. URLs hold
    secrets, so no error repeats them.
    """
    problems = []
    for number, url in enumerate(urls, start=1):
        place = f"alert URL {number} of sensors/alerts.yaml"
        channel = _channel()
        if not channel.add(url):
            problems.append(f"{place} is none that Apprise knows; mend it")
            continue
        try:
            _notify(channel, title, body)
        except Unavailable:
            problems.append(f"{place} did not take the alert")
    if problems:
        raise Unavailable(f"{'; '.join(problems)}; the alert was: {title}")


def _channel() -> Any:
    import apprise

    for name in ("apprise", "urllib3"):  # both log URLs, which are secret
        logging.getLogger(name).setLevel(logging.ERROR)
    return apprise.Apprise(asset=apprise.AppriseAsset(app_id="Personas on Dagster"))


@stamina.retry(on=Unavailable, attempts=_ATTEMPTS, wait_initial=0.5, wait_max=2.0)
def _notify(channel: Any, title: str, body: str) -> None:
    if not channel.notify(title=title, body=body):
        raise Unavailable("not taken")
