"""Pass: session windows, the latest run of events whose gaps are at most so long.

What belongs here: SELECTs over rows with a key and a timestamp that keep the rows of one session.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlglot import exp

from personas_dagster.query import sql
from personas_dagster.query.comparators import shift
from personas_dagster.query.sql import column


def latest_session(rows: exp.Expr, key: str, gap: timedelta, as_of: datetime) -> exp.Select:
    """The rows of each key's latest session; none when it ended before `as_of - gap`."""
    stamp, previous, latest = column("timestamp"), column("previous"), column("latest")
    neighbours = sql.select(
        [
            sql.everything(),
            sql.named(_before(key), "previous"),
            sql.named(sql.over(sql.call("max", stamp), [column(key)]), "latest"),
        ],
        sql.subquery(rows, "rows_of_stream"),
    )
    opens = sql.any_of([sql.is_null(previous), _is_gap(gap)])
    opened = sql.over(sql.call("max", sql.case((opens, stamp.copy()))), [column(key)])
    marked = sql.select(
        [sql.everything(), sql.named(opened, "opened")], sql.subquery(neighbours, "neighbours")
    )
    return sql.select(
        [sql.everything(but=("previous", "latest", "opened"))],
        sql.subquery(marked, "marked"),
        where=sql.all_of(
            [
                sql.compare(">=", stamp.copy(), column("opened")),
                sql.compare(">=", latest.copy(), sql.instant(shift(as_of, -gap))),
            ]
        ),
    )


def session_of_parent(rows: exp.Expr, key: str, gap: timedelta) -> exp.Select:
    """The rows that follow `parent_timestamp` without a gap that is longer."""
    stamp = column("timestamp")
    neighbours = sql.select(
        [sql.everything(), sql.named(_before(key, column("parent_timestamp")), "previous")],
        sql.subquery(rows, "rows_of_stream"),
    )
    broken = sql.over(sql.call("min", sql.case((_is_gap(gap), stamp))), [column(key)])
    marked = sql.select(
        [sql.everything(), sql.named(broken, "broken")], sql.subquery(neighbours, "neighbours")
    )
    return sql.select(
        [sql.everything(but=("previous", "broken"))],
        sql.subquery(marked, "marked"),
        where=sql.any_of(
            [
                sql.is_null(column("broken")),
                sql.compare("<", stamp.copy(), column("broken")),
            ]
        ),
    )


def _before(key: str, otherwise: exp.Expr | None = None) -> exp.Expr:
    default = [sql.number(1), otherwise] if otherwise is not None else []
    lag = sql.call("lag", column("timestamp"), *default)
    return sql.over(lag, [column(key)], [column("timestamp")])


def _is_gap(gap: timedelta) -> exp.Expr:
    limit = sql.plus(column("previous"), sql.interval(gap))
    return sql.compare(">", column("timestamp"), limit)
