"""What only Kinesis does; and the contract once more, with a stream at moto's server."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import contract
import pytest
from contract import ANN, AUDIENCE, Subject, check, deliver, error_of, no_pace, people, send, write
from moto_stream import Moto, SubjectAtMoto
from pydantic import SecretStr

from personas_dagster.activation.delivery import Parcel, batches
from personas_dagster.activation.destination import DELIVERED
from personas_dagster.destinations import open_destination
from personas_dagster.errors import (
    DeliveryError,
    NeedsSetup,
    PersonasError,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
)
from personas_dagster.simulators import Answer
from personas_dagster.simulators.serving import Served


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    made = Moto()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """None of this machine's own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


def on(served: Served) -> Any:
    return Subject("kinesis", served).account()


def at(moto: Moto, **settings: Any) -> Any:
    """A destination that speaks to moto itself, and the stream's name."""
    stream = moto.make_stream()
    keys = {"access_key_id": SecretStr("AKIA1"), "secret_access_key": SecretStr("s3cret-key")}
    given = {"stream": stream, "region": "eu-west-1", "base_url": moto.url, **keys, **settings}
    return open_destination("kinesis", {k: v for k, v in given.items() if v is not None}), stream


# with moto


@pytest.mark.parametrize("clause", contract.CLAUSES, ids=lambda clause: clause.__name__)
def test_contract_at_moto(moto: Moto, served: Served, clause: Any) -> None:
    subject = SubjectAtMoto("kinesis", served)
    subject.moto = moto
    clause(subject)


def test_records_are_the_messages(moto: Moto) -> None:
    destination, stream = at(moto)
    messages = write(destination.abilities, [(ANN, "true")], kind="audience", key=AUDIENCE)
    assert send(destination, messages) == [DELIVERED] * 2
    records = moto.records(stream)
    assert [json.loads(one["Data"]) for one in records] == [one.body for one in messages]
    assert {one["PartitionKey"] for one in records} == {"user-123"}


def test_more_than_a_request_takes(moto: Moto) -> None:
    destination, stream = at(moto)
    rows = people(1_100, destination.abilities)
    assert deliver(destination, rows) == [DELIVERED] * 1_100
    found = [json.loads(one["Data"])["messageId"] for one in moto.records(stream)]
    assert sorted(found) == sorted(one.message_id for one in rows)


def test_a_stream_by_its_arn(moto: Moto) -> None:
    _, stream = at(moto)
    summary = moto.client().describe_stream_summary(StreamName=stream)
    arn = summary["StreamDescriptionSummary"]["StreamARN"]
    destination, _ = at(moto, stream=arn)
    assert check(destination) is None
    assert send(destination, people(1, destination.abilities)) == [DELIVERED]
    assert len(moto.records(stream)) == 1
    assert '"StreamARN"' in destination.preview(people(1, destination.abilities))[0].body


def test_a_stream_that_is_not_there_is_said(moto: Moto) -> None:
    destination, _ = at(moto, stream="nowhere")
    error = error_of(destination, people(1, destination.abilities))
    assert isinstance(error, NeedsSetup)
    assert "make the stream nowhere in eu-west-1" in str(error)
    assert check(destination) == str(error)


def test_keys_from_awss_own_chain(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    destination, stream = at(moto, access_key_id=None, secret_access_key=None)
    error = error_of(destination, people(1, destination.abilities))
    assert isinstance(error, Unauthorized) and "give access_key_id" in str(error)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "from-the-environment")
    assert send(destination, people(1, destination.abilities)) == [DELIVERED]
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(Unauthorized, match="nobody"):
        send(destination, people(1, destination.abilities))


def test_a_role_is_assumed(moto: Moto, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto hands out keys of the role; the simulator sees that records come with these."""
    account, opened = on(served)
    account.is_authorized = lambda seen: "x-amz-security-token" in seen.headers
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.url)
    role = {"role_arn": "arn:aws:iam::123456789012:role/personas", "external_id": SecretStr("e1")}
    assert send(opened(**role), people(1, opened().abilities)) == [DELIVERED]
    assert isinstance(error_of(opened(), people(1, opened().abilities)), Unauthorized)


# answers


def failed(code: str) -> Answer:
    rows = [{"SequenceNumber": "1", "ShardId": "s"}, {"ErrorCode": code, "ErrorMessage": "why"}]
    return Answer(200, json.dumps({"FailedRecordCount": 1, "Records": rows}).encode())


@pytest.mark.parametrize(
    ("code", "kind"),
    [("ProvisionedThroughputExceededException", Throttled), ("InternalFailure", Unavailable),
     ("KMSThrottlingException", Throttled)],
)  # fmt: skip
def test_records_that_failed(served: Served, code: str, kind: type[DeliveryError]) -> None:
    account, opened = on(served)
    account.faults.next(failed(code))
    outcomes = send(opened(), people(2, opened().abilities))
    assert outcomes[0] == DELIVERED
    assert type(outcomes[1].error) is kind and str(outcomes[1].error) == f"{code}: why"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(400, "ThrottlingException", Throttled), (400, "LimitExceededException", Throttled),
     (400, "ExpiredTokenException", Unauthorized), (400, "KMSDisabledException", NeedsSetup),
     (400, "ValidationException", Rejected), (500, "InternalFailure", Unavailable),
     (400, "InvalidArgumentException", Rejected), (503, "ServiceUnavailable", Unavailable)],
)  # fmt: skip
def test_requests_that_failed(
    served: Served, status: int, code: str, kind: type[DeliveryError]
) -> None:
    account, opened = on(served)
    account.faults.next(Answer(status, json.dumps({"__type": code, "message": "why"}).encode()))
    error = error_of(opened(), people(1, opened().abilities))
    assert isinstance(error, kind) and code in str(error)


def test_awss_client_tries_once(served: Served) -> None:
    account, opened = on(served)
    for fault in ("error", "throttle", "reset"):
        account.requests.clear()
        account.faults.next(fault)
        assert isinstance(
            error_of(opened(), people(1, opened().abilities)), Unavailable | Throttled
        )
        assert len(account.requests) == 1


def test_who_may_not_describe_may_write(served: Served) -> None:
    account, opened = on(served)
    denied = Answer(400, b'{"__type": "AccessDeniedException", "message": "no"}')
    account.faults.next(denied)
    assert check(opened()) is None
    account.faults.next(denied)
    assert isinstance(error_of(opened(), people(1, opened().abilities)), Unauthorized)


def test_a_stream_that_is_being_deleted_is_said(served: Served) -> None:
    account, opened = on(served)
    account.status = "DELETING"
    assert "is DELETING, not active" in str(check(opened()))


# requests


def test_requests_do_not_block(served: Served) -> None:
    """While one waits for its answer, the event loop goes on, and so do others."""
    account, opened = on(served)
    account.faults.delay = 0.5
    account.faults.next("timeout")
    ticks: list[str] = []

    async def run() -> None:
        async with opened(concurrency=2) as destination:
            batch = people(2, destination.abilities)
            slow = asyncio.create_task(destination.send(batch[:1], no_pace))
            while not account.requests:
                await asyncio.sleep(0.001)
            await destination.send(batch[1:], no_pace)
            ticks.append(f"slow one done: {slow.done()}")
            await slow

    asyncio.run(run())
    assert ticks == ["slow one done: False"]
    deadline = time.monotonic() + 5
    while any(one.name.startswith("kinesis") for one in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_partition_keys(served: Served) -> None:
    _, opened = on(served)
    abilities = opened().abilities

    def keys(destination: Any, **who: str) -> list[str]:
        connection = {"kind": "computed_trait", "key": "n"}
        if "group_id" in who:
            connection["collection"] = "accounts"
        messages = write(abilities, [(who, "7")], **connection)
        (request,) = destination.preview(messages)
        return [one["PartitionKey"] for one in json.loads(request.body)["Records"]]

    assert keys(opened(), user_id="u1", email="a@x.example") == ["u1", "u1"]
    assert keys(opened(), email="a@x.example") == ["a@x.example"] * 2
    assert keys(opened(), group_id="acme") == ["acme"]
    assert keys(opened(partition_key="message_id"), user_id="u1") == ["m1-identify", "m1-track"]
    (long, _) = keys(opened(), user_id="ü" * 257)
    assert len(long) == 64 and long != keys(opened(), user_id="ü" * 258)[0]


def test_records_that_are_too_large(served: Served) -> None:
    account, opened = on(served)
    small = opened(max_record_bytes=1_024)
    batch = people(3, small.abilities)
    big = write(small.abilities, [({"user_id": "u" * 1_024}, "true")], kind="audience",
                key=AUDIENCE, forms=("identify",))  # fmt: skip
    outcomes = send(small, [batch[0], *big, batch[1]])
    assert [type(o.error) for o in outcomes] == [type(None), Rejected, type(None)]
    assert "the stream takes 1024" in str(outcomes[1].error)
    account.requests.clear()
    assert isinstance(error_of(small, big), Rejected) and small.preview(big) == []
    assert account.requests == []


def test_a_batch_is_always_one_request() -> None:
    """The limits count partition keys, too; what is left for messages allows for the longest."""
    given = {"stream": "s", "region": "eu-west-1", "max_batch_bytes": 2**20}
    abilities = open_destination("kinesis", given).abilities
    assert abilities.max_batch_bytes == 2**20 - 500 * 1_024
    assert abilities.max_batch_bytes > 500_000


def test_batches_that_the_engine_cuts_are_never_too_large(served: Served) -> None:
    """400 records of some 40 kB are more than 5 MiB; the simulator refuses what is."""
    account, opened = on(served)
    destination = opened()
    rows = [({"user_id": f"u{n:040000}"}, "true") for n in range(400)]
    messages = write(destination.abilities, rows, kind="audience", key=AUDIENCE,
                     forms=("identify",))  # fmt: skip
    cut = list(batches(Parcel("c", [(None, messages)]), destination.abilities))  # type: ignore[list-item]
    assert [message for some in cut for message in some] == messages and 3 < len(cut) < 10
    for some in cut:
        assert send(destination, some) == [DELIVERED] * len(some)
    assert len(account.requests) == len(cut)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"stream": "a b"}, "stream: "), ({"region": "europe"}, "region: "),
     ({"access_key_id": SecretStr("k")}, "expected both"),
     ({"session_token": SecretStr("k")}, "goes with `access_key_id`"),
     ({"external_id": SecretStr("k")}, "goes with `role_arn`"),
     ({"max_record_bytes": 6 * 2**20}, "expected `max_record_bytes`"),
     ({"role_arn": "personas"}, "role_arn: "), ({"batch_size": 501}, "batch_size: ")],
)  # fmt: skip
def test_settings_that_do_not_hold(settings: Any, message: str) -> None:
    good = {"stream": "s", "region": "eu-west-1"}
    with pytest.raises(PersonasError, match=message):
        open_destination("kinesis", {**good, **settings})
    assert open_destination("kinesis", good).abilities.requests_per_second == 2


@pytest.mark.parametrize(
    ("region", "host"),
    [("eu-west-1", "https://kinesis.eu-west-1.amazonaws.com"),
     ("cn-north-1", "https://kinesis.cn-north-1.amazonaws.com.cn"),
     ("us-gov-east-1", "https://kinesis.us-gov-east-1.amazonaws.com")],
)  # fmt: skip
def test_regions_are_awss(region: str, host: str) -> None:
    """What a dry run shows is where AWS's client goes."""
    from personas_dagster.destinations.kinesis.client import connect

    destination: Any = open_destination("kinesis", {"stream": "s", "region": region})
    assert destination.settings.url == host == connect(destination.settings).meta.endpoint_url


def test_without_boto3_it_says_what_to_install() -> None:
    code = """
import asyncio, sys
sys.modules["boto3"] = sys.modules["botocore"] = None
from personas_dagster.destinations import open_destination
from personas_dagster.errors import PersonasError
async def run():
    async with open_destination("kinesis", {"stream": "s", "region": "eu-west-1"}):
        pass
try:
    asyncio.run(run())
except PersonasError as error:
    assert "personas-dagster[kinesis]" in str(error)
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
