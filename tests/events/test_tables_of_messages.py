"""Parquet and CSV files give what the same messages give as JSON lines."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Message = Callable[..., dict[str, Any]]
OBJECTS = ("properties", "traits", "context", "integrations")


def messages(message: Message) -> list[dict[str, Any]]:
    return [
        message(1, properties={"revenue": 12.5, "items": [1, 2], "gift": True, "note": 'a,"b"\n'}),
        message(2, type="identify", event=..., traits={"plan": "pro"}, timestamp="2024-05-01"),
        message(3, type="page", event=..., name="Home", anonymousId="a-7", userId=...),
        message(4, messageId=..., context={"device": {"id": "007"}}),
        message(5, type="group", groupId="g1"),
        message(6, type="nonsense"),
        message(7, receivedAt="not a time"),
    ]


def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def plain(row: dict[str, Any]) -> dict[str, Any]:
        objects = {name: json.loads(row[name]) for name in OBJECTS if row[name] is not None}
        return {k: v for k, v in row.items() if k not in (*OBJECTS, "file_id")} | objects

    return [plain(row) for row in rows]


def check(make_intake: Callable[[], Any], message: Message, name: str, content: bytes) -> None:
    lines, table = make_intake(), make_intake()
    lines.take(*messages(message))
    path = table.root / name
    path.write_bytes(content)
    report = table.take_files(path)
    assert (report.accepted, report.rejected, report.damaged) == (5, 2, {})
    assert comparable(table.rows()) == comparable(lines.rows())
    reasons = [(row["line"], row["reason"]) for row in table.rows("rejected_events")]
    assert reasons == [(6, "unknown_type"), (7, "bad_timestamp")]


def flat(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Objects as JSON text, as tables have them."""
    return [{k: json.dumps(v) if k in OBJECTS else v for k, v in row.items()} for row in rows]


def csv_of(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, sorted({name for row in rows for name in row}))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet_of(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    names = sorted({name for row in rows for name in row})
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), sink)
    return sink.getvalue()


def test_parquet_with_structs(make_intake: Any, message: Message) -> None:
    check(make_intake, message, "m.parquet", parquet_of(messages(message)))


def test_parquet_with_json_text_in_snake_case(make_intake: Any, message: Message) -> None:
    snake = {"messageId": "message_id", "userId": "user_id", "anonymousId": "anonymous_id"}
    snake |= {"groupId": "group_id", "receivedAt": "received_at"}
    rows = [{snake.get(k, k): v for k, v in row.items()} for row in flat(messages(message))]
    check(make_intake, message, "m.parquet", parquet_of(rows))


def test_csv_with_json_text(make_intake: Any, message: Message) -> None:
    check(make_intake, message, "m.csv", csv_of(flat(messages(message))))


def test_csv_with_dotted_columns(make_intake: Any, message: Message) -> None:
    rows = flat(messages(message))
    for row in rows:
        properties = json.loads(row.pop("properties", "{}"))
        context = json.loads(row.pop("context", "{}"))
        row |= {
            "properties": json.dumps({k: v for k, v in properties.items() if k == "items"}),
            "properties.revenue": properties.get("revenue"),
            "properties.gift": "true" if properties else None,
            "properties.note": properties.get("note"),
            "context.device.id": context.get("device", {}).get("id"),
        }
        if not properties:
            del row["properties"]
    check(make_intake, message, "m.csv.gz", gzip.compress(csv_of(rows)))


def test_parquet_types(intake: Any) -> None:
    at = dt.datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=dt.UTC)
    table = pa.table(
        {
            "message_id": pa.array([1], pa.int64()),
            "type": ["track"],
            "event": pa.array([b"Order Completed"]),
            "user_id": pa.array([15.0]),
            "anonymous_id": pa.array([float("nan")]),
            "received_at": pa.array([at], pa.timestamp("ns", "Europe/Berlin")),
            "timestamp": pa.array([at.replace(tzinfo=None)], pa.timestamp("us")),
            "properties": pa.array([[("a", "1"), ("b", None)]], pa.map_(pa.string(), pa.string())),
        }
    )
    path = intake.root / "types.parquet"
    pq.write_table(table, path)
    intake.take_files(path)
    (row,) = intake.rows()
    ids = (row["message_id"], row["user_id"], row["anonymous_id"], row["event"])
    assert ids == ("1", "15", None, "Order Completed")
    assert row["received_at"] == row["timestamp"] == at
    assert json.loads(row["properties"]) == {"a": "1"}


def test_csv_cells(intake: Any) -> None:
    path = intake.root / "cells.csv"
    header = b"type,event,userId,properties.zip,properties.n,properties.big\n"
    path.write_bytes(header + b"track,E,007,00123,1.5,12345678901234567890\n\ntrack,\xff,u,,,\n")
    report = intake.take_files(path)
    assert report.reasons == {"not_utf8": 1}
    (row,) = intake.rows()
    assert row["user_id"] == "007"
    properties = {"zip": "00123", "n": 1.5, "big": "12345678901234567890"}
    assert json.loads(row["properties"]) == properties


def test_csv_that_breaks_off(intake: Any) -> None:
    path = intake.root / "broken.csv"
    path.write_bytes(b'type,event,userId\ntrack,E,u1\ntrack,"never closed,u2\ntrack,E,u3\n')
    report = intake.take_files(path)
    assert report.accepted == 1
    assert "after row 1" in report.damaged[str(path)]


def test_object_cell_that_is_none(intake: Any) -> None:
    path = intake.root / "cells.csv"
    path.write_bytes(b"type,event,userId,properties,context\ntrack,E,u,oops,\n")
    assert intake.take_files(path).reasons == {"wrong_type": 1}


def test_parquet_rebuilds_the_same(intake: Any, message: Message) -> None:
    path = intake.root / "m.parquet"
    path.write_bytes(parquet_of(messages(message)))
    intake.take_files(path)
    before = intake.rows(), intake.rows("rejected_events")
    intake.rebuild(*{row["received_date"] for rows in before for row in rows})
    assert (intake.rows(), intake.rows("rejected_events")) == before
