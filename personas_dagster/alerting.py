"""Alerts to people, through Apprise: Slack, e-mail, webhooks, and whatever else it speaks."""

from __future__ import annotations

from collections.abc import Sequence

from personas_dagster.errors import Unavailable


def tell(urls: Sequence[str], *, title: str, body: str) -> None:
    """Send one alert to every URL. Raises Unavailable when one of them did not take it.

    URLs hold secrets, so no error repeats them.
    """
    import apprise

    channel = apprise.Apprise(asset=apprise.AppriseAsset(app_id="Personas on Dagster"))
    wrong = [index for index, url in enumerate(urls, start=1) if not channel.add(url)]
    if wrong:
        numbers = ", ".join(map(str, wrong))
        raise Unavailable(
            f"alert URL {numbers} of sensors/alerts.yaml is none that Apprise knows; mend it"
        )
    if not channel.notify(title=title, body=body):
        raise Unavailable(f"an alert could not be delivered: {title}; check sensors/alerts.yaml")
