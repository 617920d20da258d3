"""Who lives in the sample shop's world: people, their devices, the accounts they belong to.

What these people do is in `visits.py`. Instants are integers: milliseconds since 1970, UTC.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

import numpy as np

from personas_dagster.samples.catalogue import (
    CITIES,
    COMPANIES,
    FIRST_NAMES,
    INDUSTRIES,
    LAST_NAMES,
    MAIL_DOMAINS,
    PHONES,
    USER_AGENTS,
)

DAY = 86_400_000
END = 20_513 * DAY  # 2026-03-01T00:00:00Z
DAYS = 120
START = END - DAYS * DAY
CLOSE = END + DAY  # the day after is the last one with messages

TEAM_MAILBOX = "purchasing@harbour-supplies.example"
TEAM_SIZE = 40

Role = Literal["visitor", "guest", "customer", "member"]
Kind = Literal["web", "ios", "android"]
Json = dict[str, Any]


@dataclass(slots=True)
class Account:
    group_id: str
    traits: Json


@dataclass(slots=True)
class Device:
    kind: Kind
    anonymous_id: str
    context: Json
    clock_error: int = 0
    user: "Person | None" = None


@dataclass(slots=True)
class Person:
    """A human being. A visitor stays unknown, a guest buys without an account,
    a customer has one, a member is a customer who buys for a company."""

    role: Role
    user_id: str | int
    name: str
    emails: list[str]
    city: str
    currency: str
    plan: str
    is_opted_in: bool
    birthday: str | None
    created_at: int | None
    appetite: float
    budget: float
    open_rate: float
    loyalty_card: str
    devices: list[Device] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    is_introduced: bool = False


@dataclass(slots=True)
class Population:
    """The people, and the draws that say when each of them comes to the shop."""

    people: list[Person]
    visits_per_day: "np.ndarray[Any, np.dtype[np.float64]]"
    first_day: "np.ndarray[Any, np.dtype[np.float64]]"
    last_day: "np.ndarray[Any, np.dtype[np.float64]]"


def populate(count: int, seed: int) -> Population:
    rng = np.random.default_rng(seed)
    random = Random(f"people {seed}")
    roles: list[Role] = ["visitor", "guest", "customer", "member"]
    role = np.sort(rng.choice(4, size=count, p=[0.38, 0.07, 0.48, 0.07]))[::-1]

    is_established = rng.random(count) < np.array([0.3, 0.3, 0.55, 0.7])[role]
    first_day = np.where(
        is_established, -rng.exponential(250.0, count) - 1, rng.uniform(0, DAYS + 1, count)
    )
    lifetime = rng.exponential(np.array([35.0, 60.0, 130.0, 300.0])[role])
    # Those who came before the window are the ones still alive at its start.
    last_day = np.maximum(first_day, 0.0) + lifetime
    mean = np.array([0.35, 0.5, 0.78, 0.95])[role]
    visits_per_day = rng.gamma(0.9, mean / 0.9) / 7

    appetite = rng.beta(1.4, 4.0, count) * np.array([0.35, 1.6, 1.1, 1.3])[role]
    budget = rng.lognormal(0.0, 0.55, count)
    open_rate = rng.beta(0.8, 2.6, count)

    people = [
        _person(
            number,
            roles[role[number]],
            # A visitor or guest never has an account, however long known to the shop.
            START + int(first_day[number] * DAY)
            if is_established[number] and role[number] >= 2
            else None,
            (float(appetite[number]), float(budget[number]), float(open_rate[number])),
            random,
        )
        for number in range(count)
    ]
    _found_accounts([p for p in people if p.role == "member"], random)
    _share_devices([p for p in people if p.role == "customer"], random)
    return Population(people, visits_per_day, first_day, last_day)


def _person(
    number: int,
    role: Role,
    created_at: int | None,
    habits: tuple[float, float, float],
    random: Random,
) -> Person:
    first, last = random.choice(FIRST_NAMES), random.choice(LAST_NAMES)
    city, currency = random.choice(CITIES)
    appetite, budget, open_rate = habits
    # One customer in eight comes from the old shop, whose ids were numbers.
    user_id = 10_000 + number if random.random() < 0.125 else f"u_{number:06}"
    emails = [f"{first}.{last}{number}@{random.choice(MAIL_DOMAINS)}".lower()]
    while random.random() < 0.35 and len(emails) < 4:
        emails.append(
            f"{first[0]}{last}{number}.{len(emails)}@{random.choice(MAIL_DOMAINS)}".lower()
        )
    person = Person(
        role=role,
        user_id=user_id,
        name=f"{first} {last}",
        emails=emails,
        city=city,
        currency=currency,
        plan=random.choices(["free", "plus", "premium"], [0.70, 0.22, 0.08])[0],
        is_opted_in=random.random() < 0.62,
        birthday=_birthday(random) if random.random() < 0.6 else None,
        created_at=created_at,
        appetite=appetite,
        budget=budget,
        open_rate=open_rate,
        loyalty_card=f"LC{number:08}",
    )
    person.devices.append(make_device(_kind(random, app=0.3), random))
    while random.random() < 0.3 and len(person.devices) < 4:
        person.devices.append(make_device(_kind(random, app=0.6), random))
    return person


def _birthday(random: Random) -> str:
    return f"{random.randint(1950, 2006)}-{random.randint(1, 12):02}-{random.randint(1, 28):02}"


def _kind(random: Random, *, app: float) -> Kind:
    if random.random() >= app:
        return "web"
    return "ios" if random.random() < 0.45 else "android"


def make_device(kind: Kind, random: Random) -> Device:
    device = Device(kind, new_id(random), {})
    if kind == "web":
        device.context = {
            "library": {"name": "analytics.js", "version": "2.11.1"},
            "userAgent": random.choice(USER_AGENTS),
            "locale": random.choice(["en-GB", "en-US", "de-DE", "fr-FR"]),
            "ip": f"203.0.113.{random.randrange(256)}",
        }
        if random.random() < 0.4:
            client = f"{random.randrange(10**9)}.{random.randrange(1_760_000_000, 1_772_000_000)}"
            device.context["integrations"] = {"Google Analytics": {"clientId": client}}
        return device
    device.context = {
        "library": {"name": f"analytics-{kind}", "version": "4.1.8"},
        "app": {"name": "Shop", "version": random.choice(["7.2.0", "7.3.1", "7.4.0"])},
        "device": {
            "id": new_id(random),
            "type": kind,
            "model": random.choice(PHONES[kind]),
            "advertisingId": new_id(random),
            "adTrackingEnabled": random.random() < 0.45,
        },
        "os": {"name": "iOS" if kind == "ios" else "Android"},
        "ip": f"198.51.100.{random.randrange(256)}",
    }
    if random.random() < 0.6:
        device.context["device"]["token"] = f"{random.getrandbits(160):040x}"
    if random.random() < 0.04:  # a clock that is wrong by minutes up to days
        device.clock_error = random.choice([-1, 1]) * int(60_000 * 10 ** random.uniform(0.7, 3.7))
    return device


def new_id(random: Random) -> str:
    text = f"{random.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _found_accounts(members: list[Person], random: Random) -> None:
    """The first account is one big team behind a single mailbox, the others have a few users."""
    team, others = members[:TEAM_SIZE], members[TEAM_SIZE:]
    accounts = [_account(0, "Harbour Supplies", random)]
    for person in team:
        person.emails.insert(0, TEAM_MAILBOX)
        person.accounts.append(accounts[0])
    while others:
        size = min(1 + int(random.expovariate(1 / 6)), 25)
        account = _account(len(accounts), COMPANIES[len(accounts) % len(COMPANIES)], random)
        accounts.append(account)
        for person in others[:size]:
            person.accounts.append(account)
            if random.random() < 0.04:  # an adviser, who works for two
                person.accounts.append(random.choice(accounts[:-1]))
        others = others[size:]


def _account(number: int, company: str, random: Random) -> Account:
    suffix = f" {number // len(COMPANIES) + 1}" if number >= len(COMPANIES) else ""
    traits = {
        "name": company + suffix,
        "industry": random.choice(INDUSTRIES),
        "employees": int(5 * 10 ** random.uniform(0, 2.5)),
        "plan": random.choices(["starter", "business", "enterprise"], [0.5, 0.35, 0.15])[0],
        # The reseller's address, the same on many accounts: it must not join anyone.
        "email": random.choice(["billing@reseller.example", f"office{number}@company.example"]),
    }
    return Account(f"acc_{number:04}", traits)


def _share_devices(customers: list[Person], random: Random) -> None:
    """Some households have one computer, on which nobody logs out properly."""
    for first, second in zip(customers[::60], customers[1::60], strict=False):
        shared = make_device("web", random)
        first.devices.insert(0, shared)
        second.devices.insert(0, shared)
