"""Requests in a process of its own, as fast as the cap lets: `ask_often.py STATE_URL URL CAP N`."""

import asyncio
import sys

import httpx

from personas_dagster.activation.pace import SharedPace, SharedWindow
from personas_dagster.state.store import State


async def ask(url: str, pace: SharedPace, times: int) -> None:
    async with httpx.AsyncClient(timeout=60) as client:

        async def one() -> None:
            with pace.turn() as turn:
                await turn()
                await client.post(url, json={})

        await asyncio.gather(*(one() for _ in range(times)))


def main(state_url: str, url: str, cap: str, times: str) -> None:
    state = State(state_url)
    limiter = SharedWindow(state, "tool", float(cap))
    asyncio.run(ask(url, SharedPace(limiter), int(times)))
    state.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
