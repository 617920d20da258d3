"""Adds and removes to rows of a customer file: columns, normalised and hashed. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from personas_dagster.activation.destination import Message
from personas_dagster.destinations import hashing
from personas_dagster.destinations.facebook_custom_audiences.settings import FacebookSettings
from personas_dagster.destinations.reading import as_text, attributes_of
from personas_dagster.destinations.tool import Call

# in the order in which Facebook has them
COLUMNS = (
    "EXTERN_ID", "EMAIL", "PHONE", "DOBY", "DOBM", "DOBD", "LN", "FN", "GEN", "CT", "ST", "ZIP",
    "COUNTRY", "MADID",
)  # fmt: skip
IDENTIFYING = frozenset({"EXTERN_ID", "EMAIL", "PHONE", "MADID"})
PROOF = "<proof of the app secret>"
SESSION = "<id of the session>"
_OPTIONS = "DATA_PROCESSING_OPTIONS"


def calls(
    batch: Sequence[Message], list_id: Callable[[Message], str], settings: FacebookSettings
) -> list[Call]:
    """One request for each list and direction. Rows that cannot be sent are carried, not said."""
    groups: dict[tuple[str, bool], list[int]] = {}
    for row, message in enumerate(batch):
        groups.setdefault((list_id(message), message.form == "add"), []).append(row)
    return [
        _change(number, [row_of(batch[row], settings) for row in rows], rows, settings, adds)
        for (number, adds), rows in groups.items()
    ]


def _change(
    number: str,
    people: Sequence[Mapping[str, str]],
    rows: Sequence[int],
    settings: FacebookSettings,
    adds: bool,
) -> Call:
    found = [one for one in people if one]
    schema = [column for column in COLUMNS if any(column in one for one in found)]
    options = _processing(settings) if adds else {}
    data = [[*(one.get(c, "") for c in schema), *options.values()] for one in found]
    body: dict[str, Any] = {"payload": {"schema": [*schema, *options], "data": data}}
    if settings.sessions:
        body["session"] = {
            "session_id": SESSION,
            "batch_seq": 1,
            "last_batch_flag": True,
            "estimated_num_total": len(found),
        }
    if adds and settings.customer_consent is not None:
        body["customer_consent"] = settings.customer_consent
    return Call("POST" if adds else "DELETE", f"{node(number, settings)}/users", body, tuple(rows))


def node(number: str, settings: FacebookSettings) -> str:
    """The path of an audience, or of the ad account."""
    return f"/{settings.api_version}/{number}"


def _processing(settings: FacebookSettings) -> dict[str, Any]:
    """Columns that say the same of everybody."""
    found: dict[str, Any] = {}
    if settings.data_processing_options:
        found[_OPTIONS] = list(settings.data_processing_options)
        if settings.data_processing_country is not None:
            found[f"{_OPTIONS}_COUNTRY"] = settings.data_processing_country
        if settings.data_processing_state is not None:
            found[f"{_OPTIONS}_STATE"] = settings.data_processing_state
    return found


def row_of(message: Message, settings: FacebookSettings) -> dict[str, str]:
    """Column to value; empty when nothing identifies anybody. Who leaves is identified only."""
    found: dict[str, str] = {}
    who = message.recipient
    if "user_id" in who:
        found["EXTERN_ID"] = who["user_id"]
    if "email" in who and (address := hashing.email(who["email"])):
        found["EMAIL"] = hashing.hashed(address)
    if "phone" in who and (digits := hashing.phone(who["phone"], settings.country_code)):
        found["PHONE"] = hashing.hashed(digits)
    for kind in ("ios.idfa", "android.idfa"):
        if kind in who and (device := hashing.device(who[kind])):
            found["MADID"] = device
    if found and message.form == "add":
        for column, value in _about(attributes_of(message)).items():
            found[column] = hashing.hashed(value)
    return found


def unfit(message: Message, settings: FacebookSettings) -> str | None:
    """Why Facebook could match nobody on this, if so."""
    if row_of(message, settings):
        return None
    kinds = " and ".join(message.recipient)
    return f"the {kinds} is none that Facebook can match on"


def _about(traits: Mapping[str, Any]) -> dict[str, str]:
    """Columns made of traits that go along; what cannot be read is left out."""
    found = {}
    for trait, (column, normal) in _ABOUT.items():
        plain = normal(as_text(traits.get(trait)))
        if plain:
            found[column] = plain
    year, month, day = _date(as_text(traits.get("birthday")))
    return {**found, **({"DOBY": year, "DOBM": month, "DOBD": day} if year else {})}


def _name(text: str) -> str:
    return re.sub(r"[^\w\s]|_", "", text).strip().lower()


def _gender(text: str) -> str:
    first = text.strip().lower()[:1]
    return first if first in ("m", "f") else ""


def _city(text: str) -> str:
    return re.sub(r"[^\w]|[\d_]", "", text).lower()


def _state(text: str) -> str:
    return re.sub(r"[^\w]|_", "", text).lower()


def _zip(text: str) -> str:
    return text.split("-")[0].replace(" ", "").lower()


def _country(text: str) -> str:
    plain = text.strip().lower()
    return plain if re.fullmatch(r"[a-z]{2}", plain) else ""


def _date(text: str) -> tuple[str, str, str]:
    found = re.match(r"(\d{4})-(\d{2})-(\d{2})(?!\d)", text)
    return (found[1], found[2], found[3]) if found else ("", "", "")


_ABOUT: dict[str, tuple[str, Callable[[str], str]]] = {
    "last_name": ("LN", _name),
    "first_name": ("FN", _name),
    "gender": ("GEN", _gender),
    "city": ("CT", _city),
    "state": ("ST", _state),
    "postal_code": ("ZIP", _zip),
    "country": ("COUNTRY", _country),
}


def new_list(name: str, settings: FacebookSettings) -> Call:
    body = {
        "name": name,
        "subtype": "CUSTOM",
        "customer_file_source": settings.customer_file_source,
    }
    return Call("POST", f"{node(settings.ad_account_id, settings)}/customaudiences", body)
