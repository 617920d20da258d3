"""A stream at moto's server on loopback, with the switchboard for faults before it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import msgspec
from contract import MARKER, Subject
from moto.server import ThreadedMotoServer

from personas_dagster.simulators.base import Request, Simulator, answer
from personas_dagster.simulators.faults import Answer
from personas_dagster.simulators.kinesis import Kinesis, busy
from personas_dagster.simulators.webhook import keep

_REGION = "eu-west-1"


class Moto:
    """The server, and AWS's own client for what tests do beside the destination."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self._streams = 0

    def stop(self) -> None:
        self._server.stop()

    def client(self, service: str = "kinesis") -> Any:
        return boto3.client(
            service, region_name=_REGION, endpoint_url=self.url,
            aws_access_key_id="test", aws_secret_access_key="test",
        )  # fmt: skip

    def make_stream(self) -> str:
        """A stream of two shards; its name."""
        self._streams += 1
        name = f"stream-{self._streams}"
        self.client().create_stream(StreamName=name, ShardCount=2)
        return name

    def records(self, stream: str) -> list[dict[str, Any]]:
        """Everything in a stream, as AWS gives it, shard by shard."""
        client, found = self.client(), []
        for shard in client.list_shards(StreamName=stream)["Shards"]:
            where = {"StreamName": stream, "ShardId": shard["ShardId"]}
            start = client.get_shard_iterator(**where, ShardIteratorType="TRIM_HORIZON")
            found += client.get_records(ShardIterator=start["ShardIterator"])["Records"]
        return found


class StreamAtMoto(Kinesis):
    """Who may ask, and what goes wrong, is the simulator's; streams and answers are moto's."""

    def __init__(self, moto: Moto, **settings: Any) -> None:
        super().__init__(**settings)
        self.moto = moto
        self.stream = moto.make_stream()

    def members(self, audience: str) -> set[str]:
        self._read()
        return super().members(audience)

    def _read(self) -> None:
        """What the stream's records say."""
        found = [msgspec.json.decode(one["Data"]) for one in self.moto.records(self.stream)]
        self.people.clear()
        for message in found:
            keep(self, message)

    def serve(self, request: Request) -> Answer:
        body = msgspec.json.decode(request.seen.body)
        rows = body.get("Records", [])
        at_fault = [self.faults.row() for _ in rows]
        if not any(at_fault):
            return self._forward(request, body)
        fit = [row for row, is_bad in zip(rows, at_fault, strict=True) if not is_bad]
        taken = self._forward(request, {**body, "Records": fit}) if fit else Answer()
        put = iter(msgspec.json.decode(taken.body).get("Records", []))
        found = [busy() if is_bad else next(put) for is_bad in at_fault]
        return answer(200, {"FailedRecordCount": sum(at_fault), "Records": found})

    def _forward(self, request: Request, body: dict[str, Any]) -> Answer:
        headers = {
            **request.seen.headers,
            "host": urlsplit(self.moto.url).netloc,
        }
        headers.pop("content-length", None)
        said = httpx.post(f"{self.moto.url}/", content=msgspec.json.encode(body), headers=headers)
        return Answer(said.status_code, said.content)


class SubjectAtMoto(Subject):
    """The contract's subject, with a stream at moto behind it."""

    moto: Moto

    def made(self) -> Simulator:
        return StreamAtMoto(self.moto, key=MARKER)
