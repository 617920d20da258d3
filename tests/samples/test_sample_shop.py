import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from personas_dagster.samples import shop
from personas_dagster.samples.defects import SENTINELS
from personas_dagster.samples.people import TEAM_MAILBOX


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return shop.write(tmp_path_factory.mktemp("shop"), people=900)


@pytest.fixture(scope="module")
def lines(files: list[Path]) -> list[bytes]:
    return [line for path in files for line in gzip.decompress(path.read_bytes()).splitlines()]


@pytest.fixture(scope="module")
def messages(lines: list[bytes]) -> list[dict[str, Any]]:
    found = []
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if isinstance(message, dict):
            found.append(message)
    return found


def users_by(messages: list[dict[str, Any]], key: str) -> dict[str, set[str]]:
    users: dict[str, set[str]] = {}
    for message in messages:
        user = str(message.get("userId", ""))
        if user and user not in SENTINELS and message["type"] != "alias" and message.get(key):
            users.setdefault(message[key], set()).add(user)
    return users


def test_one_file_per_day(files: list[Path]) -> None:
    assert len(files) == 121
    assert files[0].name == "2025-11-01.jsonl.gz"
    assert files[-1].name == "2026-03-01.jsonl.gz"


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    first = shop.write(tmp_path / "first", people=60, seed=3)
    again = shop.write(tmp_path / "again", people=60, seed=3)
    other = shop.write(tmp_path / "other", people=60, seed=4)
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    assert [p.read_bytes() for p in first] != [p.read_bytes() for p in other]


def test_count_of_messages(lines: list[bytes]) -> None:
    assert 15_000 < len(lines) < 30_000  # some 22 per person


def test_ordered_by_arrival(files: list[Path]) -> None:
    for path in (files[0], files[60], files[-1]):
        arrivals = []
        for line in gzip.decompress(path.read_bytes()).splitlines():
            try:
                arrivals.append(json.loads(line)["receivedAt"])
            except (ValueError, TypeError):
                continue
        assert arrivals == sorted(arrivals)
        assert {arrival[:10] for arrival in arrivals} == {path.name[:10]}


def test_all_events_happen(messages: list[dict[str, Any]]) -> None:
    assert {m["type"] for m in messages} >= {
        *("identify", "track", "page", "screen", "group", "alias")
    }
    assert {m.get("event") for m in messages} >= {
        *("Product Viewed", "Product Added", "Checkout Started", "Order Completed"),
        *("Order Refunded", "Email Opened", "Support Ticket Opened", "Signed Up"),
    }


def test_funnel_narrows(messages: list[dict[str, Any]]) -> None:
    counts = Counter(m.get("event") for m in messages)
    steps = [
        *("Product Viewed", "Product Added", "Checkout Started", "Order Completed"),
        "Order Refunded",
    ]
    sizes = [counts[step] for step in steps]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] > 5


def test_orders_add_up(messages: list[dict[str, Any]]) -> None:
    orders = [m["properties"] for m in messages if m.get("event") == "Order Completed"]
    for order in orders:
        value = sum(item["price"] * item["quantity"] for item in order["products"])
        assert 0.89 * value <= float(order["revenue"]) <= value + 0.01
        assert order["currency"] in ("EUR", "GBP", "USD")


def test_visitors_become_known(messages: list[dict[str, Any]]) -> None:
    anonymous: set[str] = set()
    known: set[str] = set()
    for message in messages:
        if message["type"] == "identify" and "userId" in message:
            known |= {message.get("anonymousId", "")} & anonymous
        elif "userId" not in message:
            anonymous.add(message.get("anonymousId", ""))
    assert len(known) > 100


def test_phones_identify_themselves(messages: list[dict[str, Any]]) -> None:
    devices = [m["context"]["device"] for m in messages if "device" in m["context"]]
    assert {device["type"] for device in devices} == {"ios", "android"}
    assert {device["adTrackingEnabled"] for device in devices} == {True, False}
    assert any("token" in device for device in devices)


def test_team_shares_a_mailbox(messages: list[dict[str, Any]]) -> None:
    team = {
        m["userId"]
        for m in messages
        if m["type"] == "identify" and m["traits"].get("email", "").lower().strip() == TEAM_MAILBOX
    }
    assert len(team) > 20


def test_shared_device_without_reset(messages: list[dict[str, Any]]) -> None:
    shared = [users for users in users_by(messages, "anonymousId").values() if len(users) > 1]
    assert shared and all(len(users) == 2 for users in shared)


def test_people_with_many_ids(messages: list[dict[str, Any]]) -> None:
    devices: dict[str, set[str]] = {}
    emails: dict[str, set[str]] = {}
    for message in messages:
        user = str(message.get("userId", ""))
        if user.startswith("u_") and message["type"] == "identify":
            devices.setdefault(user, set()).add(message.get("anonymousId", ""))
            email = (message["traits"].get("email") or "").strip().lower()
            emails.setdefault(user, set()).add(email)
    assert sum(len(found - {""}) > 2 for found in devices.values()) > 10
    assert sum(len(found - {""}) > 1 for found in emails.values()) > 10


def test_accounts_have_users(messages: list[dict[str, Any]]) -> None:
    groups = users_by(messages, "groupId")
    assert len(groups) >= 3
    assert max(map(len, groups.values())) > 20


def test_bad_input_is_there(messages: list[dict[str, Any]], lines: list[bytes]) -> None:
    real = {"identify", "track", "page", "screen", "group", "alias"}
    traits = [m["traits"] for m in messages if "traits" in m]
    assert len(lines) > len(messages)  # broken lines
    assert any("userId" not in m and "anonymousId" not in m for m in messages)
    assert any(m["type"] == "track" and "event" not in m for m in messages)
    assert any(len(m.get("properties", {})) == 301 for m in messages)
    assert any(m.get("timestamp", "9") < "1970" for m in messages)
    assert any(m.get("timestamp", "") > "2026-03-03" for m in messages)
    assert any(m["type"] not in real for m in messages)
    assert any("messageId" not in m for m in messages)
    assert any(m.get("userId") in SENTINELS for m in messages)
    assert any(isinstance(m.get("userId"), int) for m in messages)
    assert any(None in found.values() for found in traits)


def test_retries_repeat_the_id(messages: list[dict[str, Any]]) -> None:
    arrivals: dict[str, list[str]] = {}
    for message in messages:
        if "messageId" in message:
            arrivals.setdefault(message["messageId"], []).append(message["receivedAt"])
    retried = [found for found in arrivals.values() if len(found) > 1]
    assert len(retried) > 50
    assert any(found[0][:10] != found[-1][:10] for found in retried)


def test_clocks_go_wrong(messages: list[dict[str, Any]]) -> None:
    assert any(m.get("sentAt", "") > m["receivedAt"] for m in messages)
    assert any("sentAt" in m and m["sentAt"][:10] < m["receivedAt"][:10] for m in messages)


def test_the_window_has_no_seams(messages: list[dict[str, Any]]) -> None:
    days = Counter(m["receivedAt"][:10] for m in messages)
    assert len(days) == 121
    assert min(days.values()) > 30
