"""Requests to Kinesis, and what its answers mean.

AWS's own client knows credentials and signatures. It blocks, so each request runs in a thread; it
would try again, which is the engine's to do, so it is told not to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, Self

import httpx
import msgspec

from personas_dagster.activation.connection import Connection
from personas_dagster.activation.destination import (
    DELIVERED,
    Abilities,
    Message,
    Outcome,
    Pace,
    Request,
    Result,
)
from personas_dagster.destinations.http import MASK, Masks, from_exception, from_response
from personas_dagster.destinations.kinesis import payload
from personas_dagster.destinations.kinesis.settings import KinesisSettings
from personas_dagster.destinations.tool import cannot_delete, fields
from personas_dagster.errors import (
    DeliveryError,
    NeedsSetup,
    PersonasError,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
)

_SLOWER = frozenset(
    {"ProvisionedThroughputExceededException", "ThrottlingException", "Throttling"}
    | {"LimitExceededException", "RequestLimitExceeded", "KMSThrottlingException"}
)
_FORBIDDEN = frozenset({"AccessDeniedException", "AccessDenied", "KMSAccessDeniedException"})
_DENIED = _FORBIDDEN | frozenset(
    {"UnrecognizedClientException", "InvalidClientTokenId", "NotAuthorized", "OptInRequired"}
    | {"InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature"}
    | {"ExpiredTokenException", "ExpiredToken", "RequestExpired"}
    | {"MissingAuthenticationToken", "MissingAuthenticationTokenException"}
)
_SETUP = frozenset(
    {"ResourceNotFoundException", "KMSNotFoundException", "KMSDisabledException"}
    | {"KMSInvalidStateException", "KMSOptInRequired"}
)
_LONGEST_TEXT = 300
_READY = frozenset({"ACTIVE", "UPDATING"})


class Kinesis:
    """One stream."""

    def __init__(self, settings: KinesisSettings) -> None:
        self._settings = settings
        self._masks = Masks(settings.secrets)
        self._threads: ThreadPoolExecutor | None = None
        self._client: Any = None

    def __repr__(self) -> str:
        return f"Kinesis({self._settings.url}, {self._settings.stream})"

    @property
    def settings(self) -> KinesisSettings:
        return self._settings

    @property
    def abilities(self) -> Abilities:
        return self._settings.abilities

    async def __aenter__(self) -> Self:
        self._threads = ThreadPoolExecutor(self._settings.concurrency, "kinesis")
        try:
            self._client = await self._run(partial(connect, self._settings))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        self._client = self._threads = None

    async def send(self, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        records = [payload.record(message, self._settings) for message in batch]
        most = self._settings.max_record_bytes
        outcomes = [
            Outcome(Rejected(f"the record has {one.size} bytes; the stream takes {most}"))
            if one.size > most
            else DELIVERED
            for one in records
        ]
        fit = [row for row, outcome in enumerate(outcomes) if outcome.error is None]
        if fit:
            answer = await self._ask("put_records", pace, Records=[
                {"Data": records[row].data, "PartitionKey": records[row].key} for row in fit
            ])  # fmt: skip
            for row, outcome in zip(fit, self._outcomes(answer, len(fit)), strict=True):
                outcomes[row] = outcome
        return outcomes

    def preview(self, batch: Sequence[Message]) -> Sequence[Request]:
        records = [payload.record(message, self._settings) for message in batch]
        fit = [one for one in records if one.size <= self._settings.max_record_bytes]
        body = msgspec.json.encode(payload.shown(fit, self._settings)).decode()
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": payload.TARGET,
            "Authorization": MASK,
        }
        return [Request("POST", self._settings.url, self._masks(body), headers)] * bool(fit)

    async def result(self, receipt: str, pace: Pace) -> Result:
        return Result()

    async def delete(self, people: Sequence[Mapping[str, str]], pace: Pace) -> Sequence[Outcome]:
        """What is in a stream stays until it is too old."""
        return cannot_delete(people)

    async def check(self, connection: Connection, pace: Pace) -> None:
        """Whether the stream is there. Who may not ask that may be allowed to write even so."""
        try:
            answer = await self._ask("describe_stream_summary", pace)
        except _Forbidden:
            return
        status = fields(fields(answer).get("StreamDescriptionSummary")).get("StreamStatus")
        if status not in _READY:
            raise NeedsSetup(f"the stream {self._settings.stream} is {status}, not active; wait")

    async def _ask(self, operation: str, pace: Pace, **more: Any) -> Any:
        if self._client is None:
            raise RuntimeError("open the destination first: `async with destination:`")
        call = partial(getattr(self._client, operation), **payload.target(self._settings), **more)
        await pace()
        return await self._run(call)

    async def _run(self, call: Callable[[], Any]) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except Exception as error:
            meaning = self._meaning(error)
            if meaning is None:
                raise
        raise meaning  # not chained: botocore quotes addresses and headers

    def _outcomes(self, answer: Any, count: int) -> Sequence[Outcome]:
        rows = fields(answer).get("Records")
        if not isinstance(rows, list) or len(rows) != count:
            raise Unavailable(f"Kinesis did not say what became of {count} records")
        return [self._outcome(fields(one)) for one in rows]

    def _outcome(self, row: dict[str, Any]) -> Outcome:
        """A record that was not taken; what is wrong with all of them is said of the request."""
        code = row.get("ErrorCode")
        if not code:
            return DELIVERED
        text = self._said(code, row.get("ErrorMessage"))
        return Outcome(Throttled(text) if code in _SLOWER else Unavailable(text))

    def _said(self, code: object, message: object) -> str:
        return self._masks(f"{code}: {message}")[:_LONGEST_TEXT]

    def _meaning(self, error: Exception) -> DeliveryError | None:
        """The border where AWS's errors become the platform's; None for those of our own."""
        if isinstance(error, PersonasError):
            return None
        from botocore import exceptions as aws
        from botocore.parsers import ResponseParserError

        said = self._masks(str(error))
        if isinstance(error, aws.ClientError):
            return self._refusal(error.response)
        if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
            return Unauthorized(f"{said}; give access_key_id, or set up AWS's default chain")
        if isinstance(
            error, aws.CredentialRetrievalError | aws.TokenRetrievalError | aws.ProfileNotFound
        ):
            return Unauthorized(said)
        if isinstance(error, aws.ParamValidationError):
            return Rejected(said)
        if isinstance(error, aws.BotoCoreError):
            return from_exception(error, self._masks)
        # botocore trips over answers that are JSON, but no object
        if isinstance(error, ResponseParserError | AttributeError | TypeError | ValueError):
            return Unavailable(f"the answer cannot be read ({type(error).__name__})")
        return None

    def _refusal(self, answer: dict[str, Any]) -> DeliveryError:
        said, about = fields(answer.get("Error")), fields(answer.get("ResponseMetadata"))
        code, status = str(said.get("Code")), about.get("HTTPStatusCode", 500)
        text = self._said(code, said.get("Message"))
        if code in _SLOWER:
            return Throttled(text)
        if code in _FORBIDDEN:
            return _Forbidden(text)
        if code in _DENIED:
            return Unauthorized(text)
        if code in _SETUP:
            where = f"stream {self._settings.stream} in {self._settings.region}"
            return NeedsSetup(f"{text}; make the {where}, with its key, or name another")
        if code == "InternalFailure":
            return Unavailable(text)
        meaning = from_response(httpx.Response(status, text=text), self._masks)
        return meaning or Unavailable(f"the answer cannot be read: {text}")


class _Forbidden(Unauthorized):
    """The credentials are good, and not enough for this."""


def connect(settings: KinesisSettings) -> Any:
    """AWS's client. Credentials come from the settings, else from AWS's own chain."""
    try:
        import boto3
        import botocore.session
        from botocore.config import Config
    except ImportError as error:
        raise PersonasError(
            "a kinesis destination needs boto3: pip install 'personas-dagster[kinesis]'"
        ) from error
    for name in ("boto3", "botocore", "urllib3"):  # they log headers, which hold session tokens
        logging.getLogger(name).setLevel(logging.WARNING)
    core = botocore.session.Session()
    core.register_component("data_loader", _models())
    core.set_config_variable("region", settings.region)
    core.set_default_client_config(
        Config(
            connect_timeout=settings.timeout,
            read_timeout=settings.timeout,
            max_pool_connections=settings.concurrency,
            retries={"total_max_attempts": 1},
        )
    )
    if settings.access_key_id and settings.secret_access_key:
        token = settings.session_token
        core.set_credentials(
            settings.access_key_id.get_secret_value(),
            settings.secret_access_key.get_secret_value(),
            token.get_secret_value() if token else None,
        )
    if settings.role_arn:
        # botocore has no public way to hand over credentials that renew themselves
        core._credentials = _assumed(core, settings)
    return boto3.session.Session(botocore_session=core).client(
        "kinesis", endpoint_url=settings.base_url
    )


@cache
def _models() -> Any:
    """AWS's descriptions of its services; reading them takes longer than the rest."""
    from botocore.loaders import create_loader

    return create_loader()


def _assumed(core: Any, settings: KinesisSettings) -> Any:
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

    external = settings.external_id
    extra = {"ExternalId": external.get_secret_value()} if external else {}
    fetcher = AssumeRoleCredentialFetcher(
        core.create_client, core.get_credentials(), settings.role_arn, extra_args=extra
    )
    return DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
