"""What the people of the sample shop do, as messages in the Segment spec.

Visits are played in the order of time, so that devices which change hands and people who
become known carry the state they would really have. Damage to messages is in `defects.py`.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random

import numpy as np

from personas_dagster.samples.catalogue import CATEGORIES, CITIES, PRODUCTS
from personas_dagster.samples.people import (
    CLOSE,
    DAY,
    DAYS,
    START,
    Device,
    Json,
    Person,
    Population,
    make_device,
    new_id,
)

SECOND = 1000
HOUR = 3600 * SECOND
_EPOCH = datetime(1970, 1, 1)

# Monday first. Companies buy on working days, people in the evening and at the weekend.
_CONSUMER_WEEK = [0.95, 0.90, 0.90, 0.95, 1.00, 1.15, 1.25]
_COMPANY_WEEK = [1.30, 1.40, 1.40, 1.30, 1.10, 0.20, 0.15]
_CONSUMER_HOURS = [2, 1, 1, 1, 1, 2, 4, 6, 7, 7, 7, 8, 9, 8, 7, 7, 8, 10, 13, 16, 18, 16, 11, 5]
_COMPANY_HOURS = [0, 0, 0, 0, 0, 0, 1, 5, 12, 16, 15, 13, 9, 12, 15, 14, 11, 6, 3, 2, 1, 1, 0, 0]
# Days of the window (0 is 2025-11-01) with unusual traffic: Black Friday to Christmas.
_SEASON = {26: 1.3, 27: 2.2, 28: 1.8, 29: 1.5, 30: 1.7, 53: 0.5, 54: 0.4, 55: 0.6, 61: 0.6}

_SERVER = {"library": {"name": "analytics-node", "version": "2.2.1"}}
_HELPDESK = {"library": {"name": "helpdesk-cloud-app", "version": "1"}}
_PAGES = (("home", "/"), ("search", "/search"), ("offers", "/offers"), ("help", "/help"))
_CAMPAIGNS = ("spring-drop", "winter-sale", "brand", "retargeting")


def iso(instant: int) -> str:
    moment = _EPOCH + timedelta(milliseconds=instant)
    return moment.isoformat(timespec="milliseconds") + "Z"


def arrivals(population: Population, seed: int) -> Iterator[tuple[int, int]]:
    """Who comes when: (instant, index of the person), in the order of time."""
    rng = np.random.default_rng([seed, 1])
    days = np.arange(DAYS + 1)
    is_member = np.array([person.role == "member" for person in population.people])
    season = np.array([_SEASON.get(day, 1.3 if 30 < day < 53 else 1.0) for day in days.tolist()])
    weekday = (days + START // DAY + 3) % 7  # 1970-01-01 was a Thursday
    consumer = np.array(_CONSUMER_WEEK)[weekday] * season
    company = np.array(_COMPANY_WEEK)[weekday]
    rhythm = np.where(is_member[:, None], company, consumer)
    first, last = population.first_day[:, None], population.last_day[:, None]
    is_active = (days >= np.floor(first)) & (days <= last)
    visits = rng.poisson(population.visits_per_day[:, None] * rhythm * is_active)
    # Everybody comes once: on the first day, or on any day when that was before the window.
    opening = np.where(
        population.first_day >= 0, population.first_day, rng.integers(0, 30, len(is_member))
    )
    missing = visits.sum(axis=1) == 0
    visits[missing, opening[missing].astype(int)] = 1

    who, day = np.nonzero(visits)
    times = visits[who, day]
    who, day = np.repeat(who, times), np.repeat(day, times)
    hours = np.where(
        is_member[who],
        rng.choice(24, size=len(who), p=np.array(_COMPANY_HOURS) / sum(_COMPANY_HOURS)),
        rng.choice(24, size=len(who), p=np.array(_CONSUMER_HOURS) / sum(_CONSUMER_HOURS)),
    )
    at = START + day * DAY + hours * HOUR + rng.integers(0, HOUR, len(who))
    order = np.lexsort((who, at))
    return zip(at[order].tolist(), who[order].tolist(), strict=True)


class Shop:
    """Plays visits and collects what the shop's libraries send: (receivedAt, message)."""

    def __init__(self, people: list[Person], seed: int) -> None:
        self.people = people
        self.random = Random(f"shop {seed}")
        self.sent: list[tuple[int, Json]] = []
        self._lag = 0
        self._orders = 0

    def visit(self, person: Person, start: int) -> None:
        random = self.random
        device = self._take_device(person)
        # Some phones are offline; what they saw arrives hours later in one go.
        self._lag = (
            int(random.uniform(1, 40) * HOUR)
            if device.kind != "web" and random.random() < 0.03
            else random.randrange(SECOND, 25 * SECOND)
        )
        clock = start
        for _ in range(1 + min(int(random.expovariate(1.4)), 5)):
            clock = self._look_around(device, clock)
        clock = self._come_in(person, device, clock)
        clock = self._browse(person, device, clock)
        self._leave(person, device, clock)

    def newsletter(self, sent_at: int, number: int) -> None:
        """A mailing to all who opted in; some open it within two days."""
        for person in self.people:
            if not person.is_opted_in or person.created_at is None or person.created_at > sent_at:
                continue
            if self.random.random() < person.open_rate:
                opened = sent_at + int(self.random.expovariate(1 / (5 * HOUR)))
                properties = {
                    "campaign_id": f"nl_{number:03}",
                    "subject": f"{CATEGORIES[number % len(CATEGORIES)].title()} of the week",
                    "email": person.emails[0],
                }
                self._from_server(
                    person, opened, "track", event="Email Opened", properties=properties
                )

    # Who is there

    def _take_device(self, person: Person) -> Device:
        random = self.random
        at = 0 if random.random() < 0.7 else random.randrange(len(person.devices))
        device = person.devices[at]
        fate = random.random()
        if fate < 0.025 and device.kind == "web":  # cookies cleared, or a new computer
            device = person.devices[at] = make_device("web", random)
        elif fate < 0.01:  # the app installed again: same phone, new anonymousId
            device.anonymous_id = new_id(random)
            device.user = None
        return device

    def _come_in(self, person: Person, device: Device, clock: int) -> int:
        random = self.random
        if person.role == "visitor":
            if random.random() < 0.02:  # leaves an e-mail for the newsletter, no more
                self._send(device, clock, "identify", traits={"email": person.emails[0]})
                clock += self._pause()
        elif person.role in ("customer", "member"):
            if person.created_at is None:
                if random.random() < 0.3:
                    clock = self._sign_up(person, device, clock)
            elif device.user is not person:
                # The other one of a household stays logged in now and then.
                chance = 0.85 if device.user is not None else 0.4
                if not person.is_introduced or random.random() < chance:
                    clock = self._log_in(person, device, clock)
            elif random.random() < 0.05:
                clock = self._change_profile(person, device, clock)
        return clock

    def _sign_up(self, person: Person, device: Device, clock: int) -> int:
        person.created_at = clock
        clock = self._log_in(person, device, clock)
        self._track(device, clock, "Signed Up", {"method": self.random.choice(["email", "sso"])})
        return clock + self._pause()

    def _log_in(self, person: Person, device: Device, clock: int) -> int:
        random = self.random
        device.user = person
        traits: Json = {"email": self._address(person)}
        if not person.is_introduced or random.random() < 0.3:
            person.is_introduced = True
            assert person.created_at is not None
            traits |= {
                "name": person.name,
                "plan": person.plan,
                "created_at": iso(person.created_at),
                "city": person.city,
                "marketing_opt_in": person.is_opted_in,
            }
            if person.birthday:
                traits["birthday"] = person.birthday
        if random.random() < 0.02:
            traits[random.choice(["city", "plan"])] = None
        self._send(device, clock, "identify", traits=traits)
        for account in person.accounts:
            clock += SECOND
            self._send(device, clock, "group", groupId=account.group_id, traits=account.traits)
        return clock + self._pause()

    def _address(self, person: Person) -> str:
        random = self.random
        email = person.emails[0]
        if person.is_introduced and random.random() < 0.6:
            email = random.choice(person.emails)
        if random.random() < 0.04:
            email = email.title()
        return f" {email} " if random.random() < 0.005 else email

    def _change_profile(self, person: Person, device: Device, clock: int) -> int:
        random = self.random
        change = random.choice(["plan", "email", "city", "marketing_opt_in"])
        if change == "plan":
            person.plan = random.choice(["free", "plus", "plus", "premium"])
            self._from_server(person, clock, "identify", traits={"plan": person.plan})
            return clock + self._pause()
        traits: Json
        if change == "email":
            traits = {"email": person.emails[-1]}
        elif change == "city":
            person.city = random.choice(CITIES)[0]
            traits = {"city": person.city}
        else:
            person.is_opted_in = not person.is_opted_in
            traits = {"marketing_opt_in": person.is_opted_in}
        self._send(device, clock, "identify", traits=traits)
        return clock + self._pause()

    def _leave(self, person: Person, device: Device, clock: int) -> None:
        random = self.random
        if device.user is person and random.random() < 0.006:
            self._complain(person, clock, order_id=None)
        if device.user is not None and random.random() < 0.03:  # logs out, with a reset
            self._track(device, clock, "Signed Out", {})
            device.user = None
            device.anonymous_id = new_id(random)

    # What they do

    def _look_around(self, device: Device, clock: int) -> int:
        random = self.random
        if random.random() < 0.5:
            name, path = random.choice(_PAGES)
        else:
            name = random.choice(CATEGORIES)
            path = f"/c/{name}"
        if device.kind != "web":
            self._send(device, clock, "screen", name=name.title(), properties={"path": path})
        else:
            properties: Json = {"path": path, "url": f"https://shop.example{path}", "title": name}
            context = device.context
            if random.random() < 0.1:
                campaign = {"name": random.choice(_CAMPAIGNS), "medium": "cpc", "source": "ads"}
                context = {**context, "campaign": campaign}
            self._send(device, clock, "page", name=name, properties=properties, context=context)
        return clock + self._pause()

    def _browse(self, person: Person, device: Device, clock: int) -> int:
        random = self.random
        cart: list[Json] = []
        cart_id = f"cart_{random.getrandbits(40):010x}"
        for _ in range(min(int(random.expovariate(0.5)), 9)):
            product = self._choose(person)
            seen = {**product, "currency": person.currency}
            self._track(device, clock, "Product Viewed", seen)
            clock += self._pause()
            if random.random() < person.appetite:
                item = {**product, "quantity": self._quantity(person)}
                cart.append(item)
                added = {**item, "currency": person.currency, "cart_id": cart_id}
                self._track(device, clock, "Product Added", added)
                clock += self._pause()
        if cart and random.random() < (0.15 if person.role == "visitor" else 0.62):
            clock = self._check_out(person, device, clock, cart, cart_id)
        return clock

    def _choose(self, person: Person) -> Json:
        """Big budgets look at dear things: the dearest of several draws."""
        random = self.random
        draws = random.choices(PRODUCTS, k=2)
        high = random.random() < person.budget / (1 + person.budget)
        return (max if high else min)(draws, key=lambda product: product["price"])

    def _quantity(self, person: Person) -> int:
        if person.role == "member":
            return 1 + int(self.random.expovariate(0.4))
        return 1 if self.random.random() < 0.8 else self.random.randint(2, 4)

    def _check_out(
        self, person: Person, device: Device, clock: int, cart: list[Json], cart_id: str
    ) -> int:
        random = self.random
        value = round(sum(item["price"] * item["quantity"] for item in cart), 2)
        properties: Json = {"cart_id": cart_id, "value": value, "currency": person.currency}
        # A guest, or a customer who does not log in, leaves an e-mail instead.
        if device.user is None and (person.role != "visitor"):
            if person.role == "guest" or random.random() < 0.15:
                properties["email"] = person.emails[0]
            elif person.created_at is None:
                clock = self._sign_up(person, device, clock)
            else:
                clock = self._log_in(person, device, clock)
        started = {**properties, "products": cart}
        self._track(device, clock, "Checkout Started", started)
        clock += self._pause()
        if person.role == "visitor" or random.random() < 0.3:
            return clock
        self._orders += 1
        shipping = 0.0 if value >= 60 else 4.9
        discount = round(value * 0.1, 2) if random.random() < 0.15 else 0.0
        revenue = round(value - discount, 2)
        order: Json = {
            "order_id": f"o_{self._orders:06}",
            **properties,
            # The old checkout sends its amounts as text.
            "revenue": f"{revenue:.2f}" if random.random() < 0.01 else revenue,
            "total": round(revenue + shipping, 2),
            "shipping": shipping,
            "products": cart,
        }
        del order["value"]
        if discount:
            order["coupon"] = "WELCOME10"
        context = device.context
        if random.random() < 0.1:
            card = {"id": person.loyalty_card, "type": "loyalty_card"}
            card |= {"collection": "users", "encoding": "none"}
            context = {**context, "externalIds": [card]}
        self._send(
            device, clock, "track", event="Order Completed", properties=order, context=context
        )
        self._after_order(person, device, clock, order)
        return clock + self._pause()

    def _after_order(self, person: Person, device: Device, clock: int, order: Json) -> None:
        random = self.random
        if device.user is None:
            return
        if random.random() < 0.04:
            self._complain(device.user, clock + random.randrange(DAY, 9 * DAY), order["order_id"])
        if random.random() < 0.07:
            total = order["total"] if random.random() < 0.7 else round(order["total"] / 2, 2)
            refund = {"order_id": order["order_id"], "total": total, "currency": person.currency}
            at = clock + random.randrange(2 * DAY, 18 * DAY)
            self._from_server(device.user, at, "track", event="Order Refunded", properties=refund)

    def _complain(self, person: Person, at: int, order_id: str | None) -> None:
        random = self.random
        number = f"t_{random.getrandbits(32):08x}"
        properties: Json = {
            "ticket_id": number,
            "category": random.choice(["delivery", "refund", "product", "account"]),
            "priority": random.choice(["low", "normal", "normal", "high"]),
        }
        if order_id:
            properties["order_id"] = order_id
        event = "Support Ticket Opened"
        self._from_server(
            person, at + HOUR, "track", context=_HELPDESK, event=event, properties=properties
        )

    # How it is sent

    def _pause(self) -> int:
        return self.random.randrange(4 * SECOND, 90 * SECOND)

    def _track(self, device: Device, at: int, event: str, properties: Json) -> None:
        self._send(device, at, "track", event=event, properties=properties)

    def _send(
        self, device: Device, at: int, type: str, context: Json | None = None, **fields: object
    ) -> None:
        """From a browser or an app. An app also says when it sent, by its own clock."""
        random = self.random
        message: Json = {"messageId": new_id(random), "type": type}
        if device.user is not None:
            message["userId"] = device.user.user_id
        message["anonymousId"] = device.anonymous_id
        message |= fields
        context = context or device.context
        if device.user is not None and device.user.accounts and type == "track":
            context = {**context, "groupId": device.user.accounts[0].group_id}
        message["context"] = context
        if device.kind == "web":
            message["timestamp"] = iso(at)
            self._receive(at + random.randrange(40, 3 * SECOND), message)
        else:
            sent = at + self._lag
            message["originalTimestamp"] = iso(at + device.clock_error)
            message["sentAt"] = iso(sent + device.clock_error)
            self._receive(sent + random.randrange(40, SECOND), message)

    def _from_server(
        self, person: Person, at: int, type: str, context: Json = _SERVER, **fields: object
    ) -> None:
        # The server knows the old shop's numeric ids as text; the libraries send numbers.
        message: Json = {"messageId": new_id(self.random), "type": type}
        message |= {"userId": str(person.user_id), **fields}
        message["context"] = context
        message["timestamp"] = iso(at)
        self._receive(at + self.random.randrange(5, 400), message)

    def _receive(self, at: int, message: Json) -> None:
        if START <= at < CLOSE:
            message["receivedAt"] = iso(at)
            self.sent.append((at, message))
