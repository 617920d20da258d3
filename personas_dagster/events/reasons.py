"""Why a message is rejected: one code each, with what it means. The table in docs/events.md."""

from __future__ import annotations

NOT_JSON = "not_json"
NOT_AN_OBJECT = "not_an_object"
NOT_UTF8 = "not_utf8"
LINE_TOO_LONG = "line_too_long"
WRONG_TYPE = "wrong_type"
MISSING_TYPE = "missing_type"
UNKNOWN_TYPE = "unknown_type"
MESSAGE_ID_TOO_LONG = "message_id_too_long"
MISSING_EVENT = "missing_event"
MISSING_PREVIOUS_ID = "missing_previous_id"
MISSING_GROUP_ID = "missing_group_id"
GROUP_ID_TOO_LONG = "group_id_too_long"
MISSING_IDS = "missing_ids"
TOO_MANY_PROPERTIES = "too_many_properties"
TOO_MANY_TRAITS = "too_many_traits"
MESSAGE_TOO_LARGE = "message_too_large"
BAD_TIMESTAMP = "bad_timestamp"

REASONS: dict[str, str] = {
    NOT_UTF8: "the line is not UTF-8 text",
    LINE_TOO_LONG: "the line is longer than 1 MiB",
    MESSAGE_TOO_LARGE: "a message of a batch over HTTP is larger than 32 KiB",
    NOT_JSON: "the line is not JSON",
    NOT_AN_OBJECT: "the line is JSON, but not an object",
    WRONG_TYPE: "a field has a JSON type that it must not have",
    MISSING_TYPE: "there is no `type`",
    UNKNOWN_TYPE: "`type` is none of the six",
    MESSAGE_ID_TOO_LONG: "`messageId` has more than 100 characters",
    MISSING_EVENT: "a `track` without `event`",
    MISSING_PREVIOUS_ID: "an `alias` without `previousId`",
    MISSING_GROUP_ID: "a `group` without `groupId`",
    GROUP_ID_TOO_LONG: "`groupId` (or `context.groupId`) has more than 500 characters",
    MISSING_IDS: "neither `userId` nor `anonymousId` nor `context.externalIds`",
    TOO_MANY_PROPERTIES: "`properties` has more than 300 keys",
    TOO_MANY_TRAITS: "`traits` has more than 300 keys",
    BAD_TIMESTAMP: "a time is not ISO 8601, or lies before 1970",
}
