"""What a Kinesis destination can be told; the table of docs/destinations/kinesis.md."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from personas_dagster.activation.destination import Abilities
from personas_dagster.destinations.settings import ToolSettings

_MIB = 1024 * 1024
_LONGEST_KEY = 4 * 256  # bytes of a partition key, which the limits count too


class KinesisSettings(ToolSettings):
    """Settings of one stream."""

    stream: Annotated[
        str,
        Field(
            pattern=r"^([A-Za-z0-9_.-]{1,128}|arn:aws[a-z-]*:kinesis:[a-z0-9-]+:\d{12}:stream/\S+)$",
            description="The stream's name, or its ARN.",
        ),
    ]
    region: Annotated[
        str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="Region, such as `eu-west-1`.")
    ]
    access_key_id: Annotated[
        SecretStr | None, Field(description="Access key; without one, AWS's default chain.")
    ] = None
    secret_access_key: Annotated[SecretStr | None, Field(description="Its secret.")] = None
    session_token: Annotated[
        SecretStr | None, Field(description="Session token, where the key is temporary.")
    ] = None
    role_arn: Annotated[
        str | None,
        Field(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/\S+$", description="Role to assume."),
    ] = None
    external_id: Annotated[SecretStr | None, Field(description="External id for the role.")] = None
    partition_key: Annotated[
        Literal["person", "message_id"], Field(description="What decides on a record's shard.")
    ] = "person"
    batch_size: Annotated[int, Field(ge=1, le=500, description="Records per request.")] = 500
    max_batch_bytes: Annotated[
        int, Field(ge=_MIB, le=10 * _MIB, description="Bytes per request, at most.")
    ] = 5 * _MIB
    max_record_bytes: Annotated[
        int, Field(ge=1024, le=10 * _MIB, description="Bytes per record, at most.")
    ] = _MIB
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap on requests in any one second.")
    ] = 2

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("expected both of `access_key_id` and `secret_access_key`, or neither")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("`session_token` goes with `access_key_id`; give both")
        if self.external_id is not None and self.role_arn is None:
            raise ValueError("`external_id` goes with `role_arn`; give both")
        if self.max_record_bytes > self.max_batch_bytes:
            raise ValueError("expected `max_record_bytes` not to exceed `max_batch_bytes`")
        return self

    @property
    def host(self) -> str:
        """What AWS makes of the region; shown in dry runs."""
        domain = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        return f"https://kinesis.{self.region}.{domain}"

    @property
    def abilities(self) -> Abilities:
        """One batch is one request: what is left for messages is less than `max_batch_bytes`."""
        return Abilities(
            kind="event",
            matches_on=("user_id", "email", "phone", "ios.idfa", "android.idfa"),
            takes_anonymous=True,
            batch_size=self.batch_size,
            max_batch_bytes=self.max_batch_bytes - self.batch_size * _LONGEST_KEY,
            requests_per_second=self.requests_per_second,
            concurrency=self.concurrency,
        )
