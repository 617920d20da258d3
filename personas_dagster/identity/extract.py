"""External IDs out of messages: what of a message decides which identifiers it names.

`combinations` is the SQL that reads a message's identifiers as they stand there: the common ones
in columns of their own (`PLAIN`), all others as JSON text in `others`. Messages with the same
columns name the same identifiers, so everything later works on distinct combinations.
`normalise` is what makes identifiers of what was read. Blocking is not decided here.
"""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from personas_dagster.identity.facts import era_entry
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.interfaces import Session

# Column, type and collection, in the order in which a message is read.
PLAIN = (
    ("user_id", "user_id", "users"),
    ("anonymous_id", "anonymous_id", "users"),
    ("email_trait", "email", "users"),
    ("email_context", "email", "users"),
    ("email_property", "email", "users"),
    ("group_id", "group_id", "accounts"),
)
KEY = (*(column for column, _, _ in PLAIN), "others")


# What Python's str.strip removes.
SPACE = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680" + "".join(
    map(chr, [*range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000])
)

# JSON strings as they are, numbers in their shortest form, anything else is no identifier.
_ID_TEXT = """
CREATE OR REPLACE TEMP MACRO id_text(j) AS CASE json_type(j)
    WHEN 'VARCHAR' THEN j ->> '$'
    WHEN 'BIGINT' THEN j ->> '$'
    WHEN 'UBIGINT' THEN j ->> '$'
    WHEN 'DOUBLE' THEN CASE
        WHEN regexp_full_match(j ->> '$', '-?[0-9]+') THEN j ->> '$'
        WHEN abs((j ->> '$')::DOUBLE) < 1e38
             AND (j ->> '$')::DOUBLE = trunc((j ->> '$')::DOUBLE)
        THEN ((j ->> '$')::DOUBLE)::HUGEINT::VARCHAR
        ELSE j ->> '$' END
END
"""
_EXTERNAL = """
[{'collection': CASE one.collection WHEN 'accounts' THEN 'accounts' ELSE 'users' END,
  'type': one.type, 'value': id_text(one.id), 'place': 1000 + spot}
 FOR one, spot IN CASE WHEN json_type(context -> '$.externalIds') = 'ARRAY'
    THEN from_json(context -> '$.externalIds',
        '[{"id":"JSON","type":"VARCHAR","collection":"VARCHAR","encoding":"VARCHAR"}]') END
 IF one.type <> '' AND coalesce(one.encoding, 'none') = 'none']
"""
_BEFORE_KEYS = 1_000_000


def prepare_extraction(session: Session) -> None:
    """Make the macro that `combinations` uses."""
    session.run(_ID_TEXT)


def combinations(rules: IdentityRules) -> dict[str, str]:
    """`KEY`'s columns, as SQL over the columns of `raw_events`, for these rules."""
    plain = {
        "user_id": "user_id",
        "anonymous_id": "anonymous_id",
        "email_trait": _read("traits", "$.email", "email", "type = 'identify'"),
        "email_context": _read("context", "$.traits.email", "email"),
        "email_property": _read("properties", "$.email", "email"),
        "group_id": "group_id",
    }
    others = _others(rules)
    if rules.alias != "merge":
        # An alias joins nothing: it names its userId alone, or its anonymousId without one.
        names_user = f"coalesce(trim(user_id, {_quoted(SPACE)}), '') <> ''"
        plain["anonymous_id"] = (
            f"CASE WHEN type = 'alias' AND {names_user} THEN NULL ELSE anonymous_id END"
        )
        for column in ("email_context", "email_property"):
            plain[column] = f"CASE WHEN type <> 'alias' THEN {plain[column]} END"
        era = _listed([era_entry(rules.facts.thresholds)]) if rules.facts.thresholds else "NULL"
        others = f"CASE WHEN type <> 'alias' THEN {others} ELSE {era} END"
    return {**plain, "others": others}


def _read(column: str, path: str, key: str, when: str = "true") -> str:
    return (
        f"CASE WHEN {when} AND contains({column}, '\"{key}\"') "
        f"THEN id_text({column} -> {_quoted(path)}) END"
    )


def _others(rules: IdentityRules) -> str:
    """The identifiers that few messages have, as JSON text; NULL where there is none."""
    parts: list[tuple[str, str]] = [(_has("context", "device"), _device())]
    if rules.facts.thresholds:
        parts.append(era_entry(rules.facts.thresholds))
    google = """$.integrations."Google Analytics".clientId"""
    parts.append((_has("context", "Google Analytics"), _one("ga_client_id", "context", google, 30)))
    parts.append((_has("context", "braze_id"), _one("braze_id", "context", "$.Braze.braze_id", 31)))
    if rules.cross_domain_id:
        key = "crossDomainId"
        cross = _one("cross_domain_id", "context", f"$.traits.{key}", 40)
        parts.append((_has("context", key), cross))
        cross = _one("cross_domain_id", "traits", f"$.{key}", 41)
        parts.append((f"type <> 'group' AND {_has('traits', key)}", cross))
    if rules.alias == "merge":
        previous = "[{'collection': 'users', 'type': '', 'value': previous_id, "
        parts.append(("type = 'alias'", previous + "'place': 50}]"))
    parts.append((_has("context", "externalIds"), _EXTERNAL))
    place = _BEFORE_KEYS
    for kind, keys in rules.keys.items():
        for key in dict.fromkeys(spelling for name in keys for spelling in _spellings(name)):
            pointer = "/" + key.replace("~", "~0").replace("/", "~1")
            for column, path, when in (
                # A group's traits describe the account, so they name no person.
                ("traits", pointer, "type <> 'group' AND "),
                ("context", "/traits" + pointer, ""),
                ("properties", pointer, ""),
            ):
                parts.append((when + _has(column, key), _one(kind, column, path, place)))
                place += 1
    return _listed(parts)


def _listed(parts: list[tuple[str, str]]) -> str:
    """The entries of all parts as JSON text; a part is when there is something, and the list."""
    lists = [f"CASE WHEN {when} THEN {text} ELSE [] END" for when, text in parts]
    found = f"[x FOR x IN {' || '.join(lists)} IF x.value IS NOT NULL]"
    any_part = " OR ".join(f"({when})" for when in dict.fromkeys(when for when, _ in parts))
    return f"CASE WHEN {any_part} THEN nullif(to_json({found})::VARCHAR, '[]') END"


def _device() -> str:
    tracked = "(context -> '$.device.adTrackingEnabled') = 'true'"
    platform = "lower(context ->> '$.device.type')"
    entries = ", ".join(
        f"{{'collection': 'users', 'type': {platform} || '.{kind}', 'value': {text}, "
        f"'place': {place}}}"
        for kind, text, place in (
            ("id", "id_text(context -> '$.device.id')", 20),
            (
                "idfa",
                f"CASE WHEN {tracked} THEN id_text(context -> '$.device.advertisingId') END",
                21,
            ),
            ("push_token", "id_text(context -> '$.device.token')", 22),
        )
    )
    return f"CASE WHEN {platform} IN ('android', 'ios') THEN [{entries}] ELSE [] END"


def _one(kind: str, column: str, path: str, place: int) -> str:
    return (
        f"[{{'collection': 'users', 'type': {_quoted(kind)}, "
        f"'value': id_text({column} -> {_quoted(path)}), 'place': {place}}}]"
    )


def _has(column: str, key: str) -> str:
    """A cheap test that lets every row with the key pass, as JSON text writes it."""
    inner = json_text(key)
    return f"coalesce(contains({column}, {_quoted(inner)}), false)"


def json_text(text: str) -> str:
    """Text as it stands in JSON between quotes, quotes included."""
    return json.dumps(text, ensure_ascii=False)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def others_of(session: Session, texts: pa.Array) -> pa.Table:
    """The entries in the `others` of combinations: combination, collection, type, value, place."""
    where = pc.is_valid(texts)
    numbers = pa.array(np.arange(len(texts))).filter(where)
    session.register("other_texts", pa.table({"combination": numbers, "j": texts.filter(where)}))
    return session.fetch(
        "SELECT combination, CASE WHEN type = 'group_id' THEN 'accounts' ELSE collection END "
        "AS collection, type, value, place FROM ("
        'SELECT combination, unnest(from_json(j, \'[{"collection":"VARCHAR","type":'
        '"VARCHAR","value":"VARCHAR","place":"INTEGER"}]\'), recursive := true) '
        "FROM other_texts)"
    )


def normalise(kind: str, values: pa.Array) -> pa.Array:
    """Identifier values of one type as they are compared; null where nothing is left."""
    values = pc.utf8_trim(values, characters=SPACE)
    if kind == "email":
        values = _lower(values)
    return pc.if_else(pc.equal(pc.binary_length(values), 0), None, values)


def _lower(values: pa.Array) -> pa.Array:
    """Lower case as Python has it, which differs from SQL engines beyond ASCII."""
    beyond = pc.not_equal(pc.utf8_length(values), pc.binary_length(values))
    lowered = pc.ascii_lower(values)
    if not pc.any(beyond).as_py():
        return lowered
    replaced = [value.lower() for value in values.filter(beyond).to_pylist()]
    return pc.replace_with_mask(lowered, pc.fill_null(beyond, False), pa.array(replaced))


def _spellings(key: str) -> list[str]:
    """A key as it is, as snake_case and as camelCase.

    >>> _spellings("phone_number")
    ['phone_number', 'phoneNumber']
    >>> _spellings("loyaltyId")
    ['loyaltyId', 'loyalty_id']
    >>> _spellings("userID")
    ['userID', 'user_id', 'userId']
    """
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", key).lower()
    camel = re.sub(r"(?<=[A-Za-z0-9])_([a-z0-9])", lambda found: found[1].upper(), snake)
    return list(dict.fromkeys([key, snake, camel]))
