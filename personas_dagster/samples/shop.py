"""The sample shop: four months of a web and mobile shop's messages, one file per day.

    python -m personas_dagster.samples.shop DIR [--people N] [--seed N]

The window ends at 2026-03-01T00:00Z, and the file of 2026-03-01 itself follows, so that a
refresh at that instant and one a day later differ. The same people and seed give the same
bytes.
"""

import argparse
import gzip
import sys
from itertools import groupby
from pathlib import Path

from personas_dagster.samples.defects import with_defects
from personas_dagster.samples.people import DAY, DAYS, END, START, populate
from personas_dagster.samples.visits import HOUR, Shop, arrivals, iso


def write(folder: Path, *, people: int = 9_000, seed: int = 7) -> list[Path]:
    """Write the shop's messages, ordered by receivedAt; the files' names are their days."""
    lines = with_defects(_play(people, seed).sent, seed)
    lines.sort(key=lambda line: line[0])
    by_day = {
        day: [line for _, line in group]
        for day, group in groupby(lines, key=lambda line: line[0] // DAY)
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for day in range(START // DAY, END // DAY + 1):
        path = folder / f"{iso(day * DAY)[:10]}.jsonl.gz"
        text = b"".join(line + b"\n" for line in by_day.get(day, []))
        path.write_bytes(gzip.compress(text, compresslevel=5, mtime=0))
        paths.append(path)
    return paths


def _play(people: int, seed: int) -> Shop:
    population = populate(people, seed)
    shop = Shop(population.people, seed)
    for at, index in arrivals(population, seed):
        shop.visit(population.people[index], at)
    thursdays = [day for day in range(DAYS + 1) if (START // DAY + day) % 7 == 0]
    for number, day in enumerate(thursdays):
        shop.newsletter(START + day * DAY + 9 * HOUR, number)
    return shop


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the sample shop's messages.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--people", type=int, default=9_000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    paths = write(arguments.folder, people=arguments.people, seed=arguments.seed)
    sys.stderr.write(f"{len(paths)} files in {arguments.folder}\n")


if __name__ == "__main__":
    main()
