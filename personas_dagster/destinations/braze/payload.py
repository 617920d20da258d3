"""Messages to the objects of `/users/track`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.reading import attributes_of, properties_of
from personas_dagster.destinations.tool import Call, Person

DELETE = "/users/delete"


def call(batch: Sequence[Message], *, app_id: str | None, existing_only: bool) -> Call:
    """One request; its rows are those of `attributes`, then those of `events`."""
    identifies = [row for row, message in enumerate(batch) if message.form == "identify"]
    tracks = [row for row, message in enumerate(batch) if message.form == "track"]
    body: dict[str, Any] = {}
    if identifies:
        body["attributes"] = [
            {**attributes_of(batch[row]), **_who(batch[row], existing_only), **_email(batch[row])}
            for row in identifies
        ]
    if tracks:
        app = {"app_id": app_id} if app_id else {}
        body["events"] = [
            {
                **_who(batch[row], existing_only),
                **app,
                "name": batch[row].body["event"],
                "time": batch[row].body["timestamp"],
                "properties": properties_of(batch[row]),
            }
            for row in tracks
        ]
    headers = {"X-Braze-Batch": "true"} if len(batch) > 1 else {}
    return Call("POST", "/users/track", body, rows=(*identifies, *tracks), headers=headers)


def deletions(people: Sequence[Person]) -> list[Call]:
    """A request names people in one way only. Of several with an e-mail, Braze deletes one."""
    known = tuple(row for row, person in enumerate(people) if "user_id" in person)
    others = tuple(row for row, person in enumerate(people) if "user_id" not in person)
    found = []
    if known:
        ids = [people[row]["user_id"] for row in known]
        found.append(Call("POST", DELETE, {"external_ids": ids}, known))
    if others:
        first = ["unidentified", "most_recently_updated"]
        emails = [{"email": people[row]["email"], "prioritization": first} for row in others]
        found.append(Call("POST", DELETE, {"email_addresses": emails}, others))
    return found


def _who(message: Message, existing_only: bool) -> dict[str, Any]:
    """One identifier only: Braze refuses an object with two. Said aloud, since the default for
    people known by e-mail or phone alone is not to create them."""
    only = {"_update_existing_only": existing_only}
    if "user_id" in message.recipient:
        return {"external_id": message.recipient["user_id"], **only}
    kind = "email" if "email" in message.recipient else "phone"
    return {kind: message.recipient[kind], **only}


def _email(message: Message) -> dict[str, str]:
    return {kind: message.recipient[kind] for kind in ("email",) if kind in message.recipient}
