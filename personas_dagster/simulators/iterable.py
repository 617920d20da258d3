"""An Iterable project: users, events and lists."""

from __future__ import annotations

from typing import Any

from personas_dagster.simulators.base import (
    Event,
    Request,
    Simulator,
    answer,
    is_address,
    read_json,
    refuse,
    route,
)
from personas_dagster.simulators.faults import Answer, Seen

_ROWS = 1_000


class Iterable(Simulator):
    """A hybrid project. Bulk answers are 200, and name the rows that were not taken."""

    type = "iterable"
    largest_body = 4_000_000
    defers_rows = True
    routes = (
        route("POST", "/api/users/bulkUpdate", "update"),
        route("POST", "/api/events/trackBulk", "track"),
        route("DELETE", "/api/users/byUserId/{who}", "delete"),
        route("DELETE", "/api/users/{who}", "delete"),
        route("GET", "/api/lists", "show_lists"),
        route("POST", "/api/lists", "make_list"),
        route("POST", "/api/lists/subscribe", "subscribe"),
        route("POST", "/api/lists/unsubscribe", "unsubscribe"),
    )

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.names: dict[int, str] = {}

    def settings(self, url: str) -> dict[str, Any]:
        return {
            "base_url": url,
            "api_key": self.key,
            "bulk_users_per_second": 1000,
            "bulk_events_per_second": 1000,
        }

    def is_authorized(self, seen: Seen) -> bool:
        return seen.headers.get("api-key") == self.key

    def unauthorized(self) -> Answer:
        return answer(401, {"msg": "Invalid API key", "code": "BadApiKey", "params": None})

    def throttled(self) -> Answer:
        return answer(429, {"msg": "Too many requests", "code": "RateLimitExceeded"})

    def update(self, request: Request) -> Answer:
        def keep(row: dict[str, Any]) -> None:
            email = {"email": row["email"]} if "email" in row else {}
            self.person(_who(row)).update({**row.get("dataFields", {}), **email})

        return self._bulk(request, "users", keep)

    def track(self, request: Request) -> Answer:
        def keep(row: dict[str, Any]) -> None:
            event = Event(_who(row), row["eventName"], row.get("dataFields", {}), row.get("id"))
            self.happen(event)

        return self._bulk(request, "events", keep)

    def delete(self, request: Request, who: str) -> Answer:
        request.rows = 1
        if not self.forget(who):
            return answer(404, {"msg": "no such user", "code": "NotFound", "params": None})
        return answer(200, {"msg": "", "code": "Success", "params": None})

    def show_lists(self, request: Request) -> Answer:
        lists = [{"id": n, "name": name, "listType": "Standard"} for n, name in self.names.items()]
        return answer(200, {"lists": lists})

    def make_list(self, request: Request) -> Answer:
        name = read_json(request).get("name")
        if not name:
            raise refuse(400, {"msg": "name is required", "code": "BadParams"})
        number = 1000 + len(self.names)
        self.names[number] = name
        self.lists.setdefault(name, set())
        return answer(200, {"listId": number})

    def subscribe(self, request: Request) -> Answer:
        members = self._list(request)

        def keep(row: dict[str, Any]) -> None:
            self.person(_who(row))
            members.add(_who(row))

        return self._bulk(request, "subscribers", keep)

    def unsubscribe(self, request: Request) -> Answer:
        members = self._list(request)
        if read_json(request).get("channelUnsubscribe"):
            raise refuse(400, {"msg": "that is an opt-out of the channel", "code": "BadParams"})
        return self._bulk(request, "subscribers", lambda row: members.discard(_who(row)))

    def _list(self, request: Request) -> set[str]:
        number = read_json(request).get("listId")
        if number not in self.names:
            raise refuse(400, {"msg": "no such list", "code": "BadParams"})
        return self.lists[self.names[number]]

    def _bulk(self, request: Request, field: str, keep: Any) -> Answer:
        rows = read_json(request).get(field)
        if not isinstance(rows, list) or not rows or len(rows) > _ROWS:
            raise refuse(400, {"msg": f"expected 1 to {_ROWS} {field}", "code": "BadParams"})
        request.rows = len(rows)
        failed: dict[str, list[str]] = {}
        for row in rows:
            kind = "UserIds" if "userId" in row else "Emails"
            if not row.get("userId") and not row.get("email"):
                raise refuse(400, {"msg": "email or userId is required", "code": "BadParams"})
            if "email" in row and not is_address(row["email"]):
                failed.setdefault("invalidEmails", []).append(row["email"])
            elif self.faults.row():
                failed.setdefault(f"conflict{kind}", []).append(_who(row))
            else:
                keep(row)
        count = sum(map(len, failed.values()))
        said = {
            "successCount": len(rows) - count,
            "failCount": count,
            "invalidEmails": failed.get("invalidEmails", []),
            "invalidUserIds": [],
            "failedUpdates": failed,
        }
        return answer(200, said)


class IterableLists(Iterable):
    """The same project, seen by who wants its lists only."""

    type = "iterable_lists"
    looks_up = True

    def settings(self, url: str) -> dict[str, Any]:
        return {"base_url": url, "api_key": self.key, "requests_per_second": None}


def _who(row: dict[str, Any]) -> str:
    return str(row.get("userId") or row["email"])
