"""Adds and removes to members of a Customer Match list: normalised and hashed. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from personas_dagster.activation.destination import Message
from personas_dagster.destinations import hashing
from personas_dagster.destinations.google_ads.settings import GoogleAdsSettings
from personas_dagster.destinations.reading import as_text, attributes_of
from personas_dagster.destinations.tool import Call

INGEST, REMOVE = "/v1/audienceMembers:ingest", "/v1/audienceMembers:remove"
STATUS = "/v1/requestStatus:retrieve"
KEY_TYPES = {"contact": "CONTACT_ID", "mobile": "MOBILE_ID", "user_id": "USER_ID"}
_DOTLESS = frozenset({"gmail.com", "googlemail.com"})
_DAY = 86_400


def lists(settings: GoogleAdsSettings) -> str:
    return f"/v1/{settings.account}/userLists"


def calls(
    batch: Sequence[Message], list_id: Callable[[Message], str], settings: GoogleAdsSettings
) -> list[Call]:
    """One request for each list and direction. Rows that cannot be sent are carried, not said."""
    groups: dict[tuple[str, bool], list[int]] = {}
    for row, message in enumerate(batch):
        groups.setdefault((list_id(message), message.form == "add"), []).append(row)
    return [
        _change(number, [member(batch[row], settings) for row in rows], rows, settings, adds)
        for (number, adds), rows in groups.items()
    ]


def _change(
    number: str,
    people: Sequence[Mapping[str, Any]],
    rows: Sequence[int],
    settings: GoogleAdsSettings,
    adds: bool,
) -> Call:
    destination = {
        "operatingAccount": _account(settings.account_id, settings),
        "productDestinationId": number,
    }
    if settings.login_account_id is not None:
        destination["loginAccount"] = _account(settings.login_account_id, settings)
    body: dict[str, Any] = {
        "destinations": [destination],
        "audienceMembers": [one for one in people if one],
    }
    if settings.match_by == "contact":
        body["encoding"] = "HEX"
    if adds:
        body["consent"] = {
            "adUserData": f"CONSENT_{settings.ad_user_data.upper()}",
            "adPersonalization": f"CONSENT_{settings.ad_personalization.upper()}",
        }
        if settings.accept_terms is not None:
            status = "ACCEPTED" if settings.accept_terms else "REJECTED"
            body["termsOfService"] = {"customerMatchTermsOfServiceStatus": status}
    return Call("POST", INGEST if adds else REMOVE, body, rows=tuple(rows))


def _account(number: str, settings: GoogleAdsSettings) -> dict[str, str]:
    return {"accountType": settings.account_type, "accountId": number}


def member(message: Message, settings: GoogleAdsSettings) -> dict[str, Any]:
    """Somebody as Google knows them; empty when nothing identifies them."""
    who = message.recipient
    if settings.match_by == "user_id":
        return {"userIdData": {"userId": who["user_id"]}} if "user_id" in who else {}
    if settings.match_by == "mobile":
        devices = [hashing.device(who[kind]) for kind in settings.matches_on if kind in who]
        found = [one for one in devices if one]
        return {"mobileData": {"mobileIds": found}} if found else {}
    identifiers: list[dict[str, Any]] = []
    if "email" in who and (address := _email(who["email"])):
        identifiers.append({"emailAddress": hashing.hashed(address)})
    if "phone" in who and (digits := hashing.phone(who["phone"], settings.country_code)):
        whole = digits if hashing.is_hash(digits) else f"+{digits}"
        identifiers.append({"phoneNumber": hashing.hashed(whole)})
    if identifiers and message.form == "add" and (place := _place(attributes_of(message))):
        identifiers.append({"address": place})
    return {"userData": {"userIdentifiers": identifiers}} if identifiers else {}


def unfit(message: Message, settings: GoogleAdsSettings) -> str | None:
    """Why Google could match nobody on this, if so."""
    if member(message, settings):
        return None
    kinds = " and ".join(message.recipient)
    return f"the {kinds} is none that Google can match on"


def _email(text: str) -> str | None:
    """At Gmail, dots before the @ do not count."""
    address = hashing.email(text)
    if address is None or "@" not in address:
        return address
    local, domain = address.rsplit("@", 1)
    return f"{local.replace('.', '')}@{domain}" if domain in _DOTLESS else address


def _place(traits: Mapping[str, Any]) -> dict[str, str]:
    """Name and place, when all four parts go along; Google takes no fewer."""
    given, family = (_name(as_text(traits.get(key))) for key in ("first_name", "last_name"))
    country = as_text(traits.get("country")).strip().upper()
    code = as_text(traits.get("postal_code")).strip()
    if not (given and family and code and re.fullmatch(r"[A-Z]{2}", country)):
        return {}
    return {
        "givenName": hashing.hashed(given),
        "familyName": hashing.hashed(family),
        "regionCode": country,
        "postalCode": code,
    }


def _name(text: str) -> str:
    return re.sub(r"[^\w\s]|_", "", text).strip().lower()


def new_list(name: str, settings: GoogleAdsSettings) -> Call:
    info: dict[str, Any] = {"uploadKeyTypes": [KEY_TYPES[settings.match_by]]}
    if settings.match_by == "mobile":
        info["mobileIdInfo"] = {"appId": settings.app_id, "keySpace": settings.key_space}
    body = {
        "displayName": name,
        "membershipDuration": f"{settings.membership_days * _DAY}s",
        "ingestedUserListInfo": info,
    }
    return Call("POST", lists(settings), body)
