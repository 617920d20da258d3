"""Which staged messages are duplicates.

The rule: a message is a duplicate when a kept message with the same id lies within the window
of its `receivedAt`, and belongs to an earlier load, or comes earlier in the same load.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from personas_dagster.interfaces import Session

_MICROSECONDS = 86_400_000_000
_DROPPED = pa.schema({"file_id": pa.int64(), "line": pa.int64()})
_EDGE = dt.timedelta(days=1)

_REACH = """
SELECT min(received_date) AS first, max(received_date) AS last
FROM staged WHERE NOT is_rejected
"""

# What was kept in partitions that are not being made again, and counts for a staged row.
_KNOWN = """
SELECT DISTINCT staged.file_id, staged.line
FROM staged
JOIN windows ON windows.load_id = staged.load_id
JOIN raw_events AS kept ON kept.message_id = staged.message_id
WHERE NOT staged.is_rejected
    AND kept.received_date BETWEEN $1 AND $2
    AND kept.received_date NOT IN (SELECT received_date FROM made_again)
    AND abs(epoch_us(kept.received_at) - epoch_us(staged.received_at)) <= windows.width
    AND (kept.load_id < staged.load_id
        OR (windows.again AND kept.load_id = staged.load_id
            AND kept.received_at < staged.received_at))
"""

# Message ids that repeat, by their hash: eight bytes a row instead of a whole id.
_REPEATED = """
WITH remaining AS (
    SELECT * FROM staged ANTI JOIN known USING (file_id, line) WHERE NOT is_rejected
),
repeated AS (
    SELECT hash(message_id) AS hashed FROM remaining GROUP BY 1 HAVING count(*) > 1
)
SELECT dense_rank() OVER (ORDER BY message_id) AS message, load_id, file_id, line,
    epoch_us(received_at) AS received, windows.width AS width
FROM remaining JOIN windows USING (load_id)
WHERE hash(message_id) IN (SELECT hashed FROM repeated)
ORDER BY message, load_id, received, file_id, line
"""


def find(
    session: Session, *, windows: Mapping[int, int], made_again: Sequence[dt.date] = ()
) -> pa.Table:
    """The (file_id, line) of the duplicates among `staged`, whose loads have these windows in days.

    `made_again`: partitions whose stored rows do not count, because the staged rows are theirs.
    """
    session.register(
        "windows",
        pa.table(
            {
                "load_id": pa.array(list(windows), pa.int64()),
                "width": pa.array([days * _MICROSECONDS for days in windows.values()], pa.int64()),
                "again": pa.array([bool(made_again)] * len(windows), pa.bool_()),
            }
        ),
    )
    session.register(
        "made_again", pa.table({"received_date": pa.array(list(made_again), pa.date32())})
    )
    reach = session.fetch(_REACH).to_pylist()[0]
    if reach["first"] is None:
        return _DROPPED.empty_table()
    width = dt.timedelta(days=max(windows.values())) + _EDGE
    days = _moved(reach["first"], -width), _moved(reach["last"], width)
    session.view("raw_events", days=days)
    known = session.fetch(_KNOWN, days)
    session.register("known", known)
    rows = session.fetch(_REPEATED)
    kept = keep_first(*(rows[name].to_numpy() for name in ("message", "received", "width")))
    repeated = rows.select(_DROPPED.names).filter(pa.array(~kept))
    return pa.concat_tables([known.cast(_DROPPED), repeated.cast(_DROPPED)])


def _moved(day: dt.date, by: dt.timedelta) -> dt.date:
    try:
        return day + by
    except OverflowError:
        return dt.date.max if by > dt.timedelta(0) else dt.date.min


def keep_first(
    message: npt.NDArray[np.int64],
    received: npt.NDArray[np.int64],
    width: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Which rows are kept, of rows in groups by `message`, each group in its order.

    The first row of a group is kept and drops those within their `width` of it; the next row
    that remains is kept, and so on: a round for each row kept of the group that keeps most.
    """
    kept = np.zeros(len(message), dtype=bool)
    remaining = np.arange(len(message))
    while len(remaining):
        groups = message[remaining]
        is_first = np.r_[True, groups[1:] != groups[:-1]]
        firsts = remaining[is_first]
        kept[firsts] = True
        first = firsts[np.cumsum(is_first) - 1]
        apart = np.abs(received[remaining] - received[first]) > width[remaining]
        remaining = remaining[apart & ~is_first]
    return kept
