"""A stream at Amazon Kinesis, and who reads it: what its records say is kept as a webhook's is."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import msgspec

from personas_dagster.simulators.base import Request, Simulator, answer, read_json, refuse, route
from personas_dagster.simulators.faults import Answer, Seen
from personas_dagster.simulators.webhook import keep

_RECORDS, _RECORD_BYTES, _BYTES = 500, 1024 * 1024, 5 * 1024 * 1024
_LONGEST_KEY = 256


class Kinesis(Simulator):
    """Signatures are not verified, but for whose they are. Records fail one by one."""

    type = "kinesis"
    defers_rows = True
    bad = {"user_id": "u" * (_RECORD_BYTES + 1)}  # a record that is too large
    routes = (route("POST", "/?", "serve"),)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.stream = "personas"
        self.status = "ACTIVE"

    def settings(self, url: str) -> dict[str, Any]:
        return {
            "base_url": url,
            "stream": self.stream,
            "region": "eu-west-1",
            "access_key_id": f"AKIA-{self.key}",
            "secret_access_key": self.key,
        }

    def is_authorized(self, seen: Seen) -> bool:
        signed = seen.headers.get("authorization", "")
        return signed.startswith(f"AWS4-HMAC-SHA256 Credential=AKIA-{self.key}/")

    def unauthorized(self) -> Answer:
        return _no("UnrecognizedClientException", "The security token is invalid")

    def throttled(self) -> Answer:
        return _no("ThrottlingException", "Rate exceeded")

    def shown(self, seen: Seen) -> str:
        """With what `Data` holds, instead of base64."""
        body = msgspec.json.decode(seen.body)
        for row in body.get("Records", ()):
            row["Data"] = b64decode(row["Data"]).decode()
        return msgspec.json.encode(body).decode()

    def serve(self, request: Request) -> Answer:
        operation = request.seen.headers.get("x-amz-target", "").rpartition(".")[2]
        body = read_json(request)
        name = body.get("StreamName") or body.get("StreamARN", "").rpartition("/")[2]
        if name != self.stream:
            return _no("ResourceNotFoundException", f"Stream {name} not found")
        if operation == "DescribeStreamSummary":
            return self.describe(name)
        if operation == "PutRecords":
            return self.put(request, body)
        return _no("UnknownOperationException", operation)

    def describe(self, name: str) -> Answer:
        return answer(200, {"StreamDescriptionSummary": {"StreamName": name,
                            "StreamStatus": self.status, "OpenShardCount": 1}})  # fmt: skip

    def put(self, request: Request, body: dict[str, Any]) -> Answer:
        rows = body.get("Records") or []
        records = [(b64decode(row["Data"]), row["PartitionKey"]) for row in rows]
        sizes = [len(data) + len(key.encode()) for data, key in records]
        if not rows or len(rows) > _RECORDS:
            raise _invalid(f"expected 1 to {_RECORDS} records")
        if any(not 0 < len(key) <= _LONGEST_KEY for _, key in records):
            raise _invalid("a partition key has 1 to 256 characters")
        if max(sizes) > _RECORD_BYTES or sum(sizes) > _BYTES:
            raise _invalid("a record or the request is too large")
        request.rows = len(rows)
        return _taken([self._put(data, number) for number, (data, _) in enumerate(records)])

    def _put(self, data: bytes, number: int) -> dict[str, Any]:
        if self.faults.row():
            return busy()
        keep(self, msgspec.json.decode(data))
        return {"SequenceNumber": str(number), "ShardId": "shardId-000000000000"}


def busy() -> dict[str, Any]:
    """What is said of a record for which its shard has no room now."""
    said = "Rate exceeded for shard shardId-000000000000"
    return {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": said}


def _taken(rows: list[dict[str, Any]]) -> Answer:
    failed = sum("ErrorCode" in row for row in rows)
    return answer(200, {"FailedRecordCount": failed, "Records": rows})


def _no(code: str, message: str) -> Answer:
    return answer(400, {"__type": code, "message": message})


def _invalid(message: str) -> Exception:
    return refuse(400, {"__type": "ValidationException", "message": message})
