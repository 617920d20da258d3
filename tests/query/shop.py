"""A small shop to ask questions about: builders of worlds for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.query.oracle import Message, Profile, World

NOW = datetime(2024, 6, 15, 12, tzinfo=UTC)


def people(*names: str, **traits: dict[str, Any]) -> World:
    """Users of these names, with traits by name."""
    world = World([Profile("users", name) for name in dict.fromkeys((*names, *traits))])
    world.traits = {("users", name): some for name, some in traits.items()}
    return world


def did(world: World, who: str, event: str, ago: timedelta, **properties: Any) -> Message:
    """An event `ago` before now."""
    message = Message(event, who, NOW - ago, f"m{len(world.messages):03}", properties)
    world.messages.append(message)
    return message


def account(world: World, name: str, *users: str, **traits: Any) -> None:
    world.profiles.append(Profile("accounts", name, False, False))
    world.traits["accounts", name] = traits
    world.links |= {(user, name) for user in users}


def days(count: float) -> timedelta:
    return timedelta(days=count)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)
