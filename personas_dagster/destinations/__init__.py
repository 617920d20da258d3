"""The catalogue: which destination types there are, and how one is opened.

Each type is a folder of the same anatomy: `settings.py` (a pydantic model), `payload.py` (messages
to requests, pure) and `client.py` (the requests' way out and the answers' meaning).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import SecretStr, ValidationError

from personas_dagster.activation.destination import Destination
from personas_dagster.destinations.amplitude import open_amplitude
from personas_dagster.destinations.braze import open_braze
from personas_dagster.destinations.customerio import open_customerio
from personas_dagster.destinations.facebook_custom_audiences import (
    open_facebook_custom_audiences,
)
from personas_dagster.destinations.google_ads import open_google_ads
from personas_dagster.destinations.hubspot import open_hubspot
from personas_dagster.destinations.hubspot_lists import open_hubspot_lists
from personas_dagster.destinations.intercom import open_intercom
from personas_dagster.destinations.iterable import open_iterable
from personas_dagster.destinations.iterable_lists import open_iterable_lists
from personas_dagster.destinations.kinesis import open_kinesis
from personas_dagster.destinations.mailchimp import open_mailchimp
from personas_dagster.destinations.marketo import open_marketo
from personas_dagster.destinations.marketo_static_lists import open_marketo_static_lists
from personas_dagster.destinations.mixpanel import open_mixpanel
from personas_dagster.destinations.sendgrid import open_sendgrid
from personas_dagster.destinations.sendgrid_lists import open_sendgrid_lists
from personas_dagster.destinations.webhook import open_webhook
from personas_dagster.destinations.zendesk import open_zendesk
from personas_dagster.errors import PersonasError

Factory = Callable[[Mapping[str, Any]], Destination]

DESTINATIONS: dict[str, Factory] = {
    "braze": open_braze,
    "customerio": open_customerio,
    "iterable": open_iterable,
    "iterable_lists": open_iterable_lists,
    "mixpanel": open_mixpanel,
    "amplitude": open_amplitude,
    "sendgrid": open_sendgrid,
    "sendgrid_lists": open_sendgrid_lists,
    "hubspot": open_hubspot,
    "hubspot_lists": open_hubspot_lists,
    "intercom": open_intercom,
    "mailchimp": open_mailchimp,
    "marketo": open_marketo,
    "marketo_static_lists": open_marketo_static_lists,
    "zendesk": open_zendesk,
    "facebook_custom_audiences": open_facebook_custom_audiences,
    "google_ads": open_google_ads,
    "kinesis": open_kinesis,
    "webhook": open_webhook,
}


def open_destination(
    type: str, settings: Mapping[str, Any], secrets: Mapping[str, SecretStr] | None = None
) -> Destination:
    """A destination of this type. `secrets` maps settings to their resolved values.

    A dot reaches into a mapping: `headers.Authorization`. Values of secrets are never repeated in
    an error.
    """
    if type not in DESTINATIONS:
        known = ", ".join(sorted(DESTINATIONS))
        raise PersonasError(f"there is no destination type `{type}`; the types are {known}")
    merged = _merge(settings, secrets or {})
    try:
        return DESTINATIONS[type](merged)
    except ValidationError as error:
        found = [
            f"{'.'.join(map(str, one['loc'])) or 'settings'}: {one['msg']}"
            for one in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    raise PersonasError(f"settings of a {type} destination do not hold: {'; '.join(found)}")


def _merge(settings: Mapping[str, Any], secrets: Mapping[str, SecretStr]) -> dict[str, Any]:
    merged: dict[str, Any] = dict(settings)
    for path, secret in secrets.items():
        *parents, last = path.split(".", 1)
        target = merged
        for parent in parents:
            target[parent] = dict(target.get(parent) or {})
            target = target[parent]
        target[last] = secret
    return merged
