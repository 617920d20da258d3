"""Messages for benchmarks: millions of Segment-spec messages, written by DuckDB.

    python benchmarks/messages.py DIR --messages 1000000 --format jsonl.gz

Every value is a hash of the message's number, so that the same arguments give the same bytes
on any number of threads, and memory stays the same for any number of messages. One message in
three brings a combination of identifiers that was not seen before (with 20 messages a person).
"""

import argparse
import os
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

Format = Literal["jsonl.gz", "parquet"]

END = "2026-03-01"
CHUNK = 200_000

# `unit(salt)` is a number in [0, 1) drawn for message i; all else follows from these draws.
# The time grows with i, so the files are in the order of time without a sort.
MESSAGES = """
WITH numbers AS (
  SELECT i, i / $messages AS moment FROM range($start, $stop) AS numbers(i)
), senders AS (
  SELECT i, moment,
    -- Some people send far more than others: the low numbers.
    floor($people * pow(unit(i, 1), 1.25))::BIGINT AS person,
    unit(i, 2) AS kind_draw, unit(i, 3) AS device_draw, unit(i, 4) AS login_draw,
    unit(i, 5) AS product_draw, unit(i, 6) AS mail_draw, unit(i, 13) AS type_draw
  FROM numbers
), people AS (
  SELECT *,
    -- Over the window a person goes through one to five browsers, sometimes back on the first.
    1 + floor(5 * pow(unit(person, 7), 1.15))::BIGINT AS browsers,
    1 + (unit(person, 8) < 0.3)::INT + (unit(person, 8) < 0.1)::INT AS mailboxes,
    CASE
      WHEN kind_draw < 0.43 THEN 'Page Viewed'
      WHEN kind_draw < 0.73 THEN 'Product Viewed'
      WHEN kind_draw < 0.84 THEN 'Product Added'
      WHEN kind_draw < 0.89 THEN 'Checkout Started'
      WHEN kind_draw < 0.92 THEN 'Order Completed'
      ELSE 'Identify'
    END AS kind,
    -- People come back to the same eight products, so that carts and orders meet.
    floor(2000 * unit(person * 8 + floor(8 * product_draw)::BIGINT, 9))::BIGINT AS product,
    1 + floor(3 * pow(product_draw, 3))::BIGINT AS quantity
  FROM senders
), facts AS (
  SELECT *,
    CASE WHEN device_draw < 0.25 THEN 0 ELSE floor(browsers * moment)::BIGINT END AS browser,
    CASE
      WHEN kind = 'Identify' THEN CASE WHEN login_draw < 0.85 THEN 'both' ELSE 'user' END
      WHEN login_draw < 0.50 THEN 'browser'
      WHEN login_draw < 0.93 THEN 'both'
      ELSE 'user'
    END AS known_by,
    round(5 + 195 * pow(unit(product, 10), 2), 2)::DECIMAL(9, 2) AS price,
    TIMESTAMP '$end' - to_microseconds(
      ((1 - moment) * $days * 86400000000)::BIGINT) AS instant
  FROM people
)
SELECT
  i,
  printf('m-%016x', hash(i, $seed, 11)) AS "messageId",
  CASE kind WHEN 'Identify' THEN 'identify' WHEN 'Page Viewed' THEN 'page' ELSE 'track' END
    AS type,
  CASE WHEN known_by <> 'browser' THEN 'u' || person END AS "userId",
  CASE WHEN known_by <> 'user'
    -- Two households in a hundred share their first browser: two users, one anonymousId.
    THEN printf('%016x', hash(
      CASE WHEN browser = 0 AND unit(person // 2, 14) < 0.02 THEN person // 2 * 2 ELSE person END,
      browser, $seed)) END AS "anonymousId",
  CASE WHEN kind NOT IN ('Identify', 'Page Viewed') THEN kind END AS event,
  CASE kind
    WHEN 'Identify' THEN NULL
    WHEN 'Page Viewed' THEN '{"path":"/c/' || product % 40 || '","title":"Shelf '
      || product % 40 || '"}'
    ELSE '{"product_id":"p' || product || '","category":"c' || product % 40
      || '","price":' || price || ',"quantity":' || quantity
      || CASE kind
        WHEN 'Order Completed' THEN ',"revenue":' || price * quantity
          || ',"currency":"EUR","order_id":"o' || i || '"'
        ELSE '' END
      || '}'
  END AS properties,
  CASE WHEN kind = 'Identify' THEN
    '{"email":"u' || person || '.' || floor(mailboxes * pow(mail_draw, 1.5))::BIGINT
      || '@mail.example","name":"Person ' || person
      || '","plan":"' || ['free', 'plus', 'premium'][1 + (3 * pow(type_draw, 2))::BIGINT % 3]
      || '","city":"City ' || person % 200
      || '","created_at":"'
      || strftime(TIMESTAMP '2023-01-01' + to_days((person % 1000)::INT), '%Y-%m-%d')
      || '"}'
  END AS traits,
  '{"library":{"name":"analytics.js","version":"2.11.1"},"locale":"'
    || ['en-GB', 'en-US', 'de-DE', 'fr-FR'][1 + person % 4]
    || '","ip":"203.0.113.' || person % 256 || '"}' AS context,
  strftime(instant, '%Y-%m-%dT%H:%M:%S.%gZ') AS timestamp,
  strftime(instant + to_milliseconds(40 + floor(4000 * pow(unit(i, 12), 4))::BIGINT),
    '%Y-%m-%dT%H:%M:%S.%gZ') AS "receivedAt"
FROM facts
"""

LINES = """
SELECT '{"messageId":"' || "messageId" || '","type":"' || type || '"'
  || coalesce(',"userId":"' || "userId" || '"', '')
  || coalesce(',"anonymousId":"' || "anonymousId" || '"', '')
  || coalesce(',"event":"' || event || '"', '')
  || coalesce(',"properties":' || properties, '')
  || coalesce(',"traits":' || traits, '')
  || ',"context":' || context
  || ',"timestamp":"' || timestamp || '","receivedAt":"' || "receivedAt" || '"}' || chr(10)
  AS line
FROM messages ORDER BY i
"""

COLUMNS = "SELECT * EXCLUDE (i) FROM messages ORDER BY i"


def write(
    folder: Path,
    *,
    messages: int,
    people: int | None = None,
    files: int = 8,
    days: int = 365,
    seed: int = 1,
    format: Format = "jsonl.gz",
) -> list[Path]:
    """Write `messages` messages of `people` (default: one for twenty messages), in time order."""
    writers = {"jsonl.gz": _write_lines, "parquet": _write_table}
    if format not in writers:
        raise ValueError(f"unknown format {format!r}, expected one of {sorted(writers)}")
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "messages": str(messages),
        "people": str(people or max(1, messages // 20)),
        "days": str(days),
        "seed": str(seed),
        "end": END,
    }
    bounds = [messages * number // files for number in range(files + 1)]
    paths = [folder / f"messages-{number:03}.{format}" for number in range(files)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # list() so that a worker's error is raised here.
        list(pool.map(partial(writers[format], values), paths, bounds[:-1], bounds[1:]))
    return paths


def _write_lines(values: dict[str, str], path: Path, start: int, stop: int) -> None:
    # zlib by hand: a gzip header without name and time, and no copy of the text.
    packer = zlib.compressobj(level=3, wbits=31)
    with path.open("wb") as file:
        for table in _chunks(values, LINES, start, stop):
            for batch in table.to_batches():
                file.write(packer.compress(_text(batch.column(0))))
        file.write(packer.flush())


def _text(lines: pa.Array) -> memoryview:
    """All the strings of an Arrow column on end: its data buffer as it lies there."""
    _, offsets, data = lines.buffers()
    positions = memoryview(offsets).cast("i" if lines.type == pa.string() else "q")
    return memoryview(data)[positions[lines.offset] : positions[lines.offset + len(lines)]]


def _write_table(values: dict[str, str], path: Path, start: int, stop: int) -> None:
    writer = None
    for table in _chunks(values, COLUMNS, start, stop):
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer:
        writer.close()


def _chunks(values: dict[str, str], select: str, start: int, stop: int) -> Iterator[pa.Table]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(
            f"CREATE MACRO unit(n, salt) AS"
            f" (hash(n, salt, {values['seed']}) >> 11) / 9007199254740992.0"
        )
        for first in range(start, max(stop, start + 1), CHUNK):
            limits = {"start": str(first), "stop": str(min(first + CHUNK, stop))}
            query = MESSAGES
            for name, value in {**values, **limits}.items():
                query = query.replace(f"${name}", value)
            yield connection.sql(f"WITH messages AS ({query}) {select}").to_arrow_table()


def main() -> None:
    parser = argparse.ArgumentParser(description="Write messages for benchmarks.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, help="default: a twentieth of the messages")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", choices=["jsonl.gz", "parquet"], default="jsonl.gz")
    arguments = vars(parser.parse_args())
    begun = time.perf_counter()
    paths = write(arguments.pop("folder"), **arguments)
    size = sum(path.stat().st_size for path in paths)
    sys.stderr.write(
        f"{len(paths)} files, {size / 1e6:.1f} MB in {time.perf_counter() - begun:.1f} s\n"
    )


if __name__ == "__main__":
    main()
