"""One sync in a process of its own, to be killed: `one_sync.py FOLDER URL REFRESH MEMBERS`."""

import json
import sys
from pathlib import Path

from world import World, buyers

from personas_dagster.destinations import open_destination


def main(folder: str, url: str, refresh_id: str, members: str) -> None:
    world = World(Path(folder))
    for n in range(2_000):
        world.person(f"p{n:04}", user_id=f"u{n:04}")
    world.members["buyers"] = {f"p{n:04}" for n in json.loads(members)}
    settings = {"url": url, "batch_size": 10, "concurrency": 4}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    world.sync(
        buyers(forms=("identify",)),
        tool=open_destination("webhook", settings),
        refresh_id=int(refresh_id),
        allow={"c": "a test"},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
