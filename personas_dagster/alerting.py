"""Alerts to people, through Apprise: Slack, e-mail, webhooks, and whatever else it speaks."""

from __future__ import annotations

from collections.abc import Sequence

import stamina

from personas_dagster.errors import Unavailable

_ATTEMPTS = 3


def tell(urls: Sequence[str], *, title: str, body: str) -> None:
    """Send one alert to every URL, each up to three times.

    Raises Unavailable when one of them did not take it; the others have it then. URLs hold
    secrets, so no error repeats them.
    """
    problems = []
    for number, url in enumerate(urls, start=1):
        try:
            _tell_one(url, number, title=title, body=body)
        except Unavailable as error:
            problems.append(str(error))
    if problems:
        raise Unavailable(f"{'; '.join(problems)}; the alert was: {title}")


@stamina.retry(on=Unavailable, attempts=_ATTEMPTS, wait_initial=0.5, wait_max=2.0)
def _tell_one(url: str, number: int, *, title: str, body: str) -> None:
    import apprise

    channel = apprise.Apprise(asset=apprise.AppriseAsset(app_id="Personas on Dagster"))
    if not channel.add(url):
        raise Unavailable(
            f"alert URL {number} of sensors/alerts.yaml is none that Apprise knows; mend it"
        )
    if not channel.notify(title=title, body=body):
        raise Unavailable(f"alert URL {number} of sensors/alerts.yaml did not take the alert")
