"""External IDs out of messages, as one SQL pass over a load.

Leaves a table `load_ids(seq, collection, type, value, place)` in the session: the identifiers
of each message of `load_messages`, normalised, with the place they were read from (the order
of appearance within a type). Blocking is not decided here.
"""

from __future__ import annotations

import re

from personas_dagster.identity.rules import IdentityRules
from personas_dagster.interfaces import Session

# What Python's str.strip removes.
_SPACE = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680" + "".join(
    map(chr, [*range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000])
)

# JSON strings as they are, numbers in their shortest form, anything else is no identifier.
_MACROS = """
CREATE OR REPLACE TEMP MACRO id_text(j) AS CASE json_type(j)
    WHEN 'VARCHAR' THEN j ->> '$'
    WHEN 'BIGINT' THEN j ->> '$'
    WHEN 'UBIGINT' THEN j ->> '$'
    WHEN 'HUGEINT' THEN j ->> '$'
    WHEN 'DOUBLE' THEN CASE
        WHEN abs((j ->> '$')::DOUBLE) < 9007199254740992
             AND (j ->> '$')::DOUBLE = floor((j ->> '$')::DOUBLE)
        THEN ((j ->> '$')::DOUBLE)::BIGINT::VARCHAR
        ELSE ((j ->> '$')::DOUBLE)::VARCHAR END
END
"""

_DEVICE = """
SELECT seq, 'users' AS collection, platform || kind AS type, id_text(j) AS value, place
FROM (
    SELECT seq, lower(context ->> '$.device.type') || '.' AS platform, unnest([
        {'kind': 'id', 'j': context -> '$.device.id', 'place': 20},
        {'kind': 'idfa', 'j': CASE WHEN (context -> '$.device.adTrackingEnabled') = 'true'
                              THEN context -> '$.device.advertisingId' END, 'place': 21},
        {'kind': 'push_token', 'j': context -> '$.device.token', 'place': 22}
    ], recursive := true)
    FROM load_messages
    WHERE context LIKE '%"device"%'
      AND lower(context ->> '$.device.type') IN ('android', 'ios')
)
"""

_PLAIN = """
SELECT seq, 'users' AS collection, 'user_id' AS type, user_id AS value, 1 AS place
FROM load_messages WHERE user_id IS NOT NULL
UNION ALL
SELECT seq, 'users', 'anonymous_id', anonymous_id, 2
FROM load_messages WHERE anonymous_id IS NOT NULL
UNION ALL
SELECT seq, 'accounts', 'group_id', group_id, 3
FROM load_messages WHERE group_id IS NOT NULL
UNION ALL
SELECT seq, 'users', 'email', id_text(traits -> '$.email'), 10
FROM load_messages WHERE type = 'identify' AND traits LIKE '%"email"%'
UNION ALL
SELECT seq, 'users', 'email', id_text(context -> '$.traits.email'), 11
FROM load_messages WHERE context LIKE '%"email"%'
UNION ALL
SELECT seq, 'users', 'email', id_text(properties -> '$.email'), 12
FROM load_messages WHERE properties LIKE '%"email"%'
UNION ALL
SELECT seq, 'users', 'ga_client_id',
       id_text(context -> '$.integrations."Google Analytics".clientId'), 30
FROM load_messages WHERE context LIKE '%"Google Analytics"%'
UNION ALL
SELECT seq, 'users', 'braze_id', id_text(context -> '$.Braze.braze_id'), 31
FROM load_messages WHERE context LIKE '%"braze_id"%'
"""

_CROSS_DOMAIN = """
SELECT seq, 'users' AS collection, 'cross_domain_id' AS type, id_text(j) AS value, place
FROM (
    SELECT seq, unnest([
        {'j': context -> '$.traits.crossDomainId', 'place': 40},
        {'j': traits -> '$.crossDomainId', 'place': 41}
    ], recursive := true)
    FROM load_messages
    WHERE context LIKE '%"crossDomainId"%' OR traits LIKE '%"crossDomainId"%'
)
"""

_EXTERNAL = """
SELECT seq, CASE collection WHEN 'accounts' THEN 'accounts' ELSE 'users' END AS collection,
       type, id_text(id) AS value, 100 + place AS place
FROM (
    SELECT seq, unnest(entries, recursive := true),
           generate_subscripts(entries, 1) AS place
    FROM (
        SELECT seq, from_json(context -> '$.externalIds',
            '[{"id":"JSON","type":"VARCHAR","collection":"VARCHAR","encoding":"VARCHAR"}]'
        ) AS entries
        FROM load_messages
        WHERE context LIKE '%"externalIds"%'
          AND json_type(context -> '$.externalIds') = 'ARRAY'
    )
)
WHERE type IS NOT NULL AND type <> '' AND coalesce(encoding, 'none') = 'none'
"""

# `$1` is the type, `$2` a JSON pointer into traits and properties, `$3` into context, `$4` a
# place. A group's traits describe the account, so they name no person.
_NAMED_KEY = """
SELECT seq, 'users' AS collection, $1 AS type, id_text(j) AS value, place
FROM (
    SELECT seq, unnest([
        {'j': CASE WHEN type <> 'group' THEN json_extract(traits, $2) END, 'place': $4},
        {'j': json_extract(context, $3), 'place': $4 + 1},
        {'j': json_extract(properties, $2), 'place': $4 + 2}
    ], recursive := true)
    FROM load_messages
)
"""

_PREVIOUS = """
SELECT seq, 'users' AS collection,
       CASE WHEN EXISTS (SELECT 1 FROM known_user_ids k WHERE k.value = previous_id)
            THEN 'user_id' ELSE 'anonymous_id' END AS type,
       previous_id AS value, 50 AS place
FROM load_messages WHERE type = 'alias' AND previous_id IS NOT NULL
"""


def extract(session: Session, rules: IdentityRules) -> None:
    """Create `load_ids` from `load_messages`. With `alias: merge` in the rules, the session
    must also have `known_user_ids(value)`.
    """
    session.run(_MACROS)
    session.run(
        "CREATE OR REPLACE TEMP TABLE found_ids"
        "(seq BIGINT, collection VARCHAR, type VARCHAR, value VARCHAR, place INTEGER)"
    )
    parts = [_PLAIN, _DEVICE, _EXTERNAL]
    if rules.cross_domain_id:
        parts.append(_CROSS_DOMAIN)
    if rules.alias == "merge":
        parts.append(_PREVIOUS)
    for part in parts:
        session.run("INSERT INTO found_ids " + part)
    place = 200
    for kind, keys in rules.keys.items():
        for key in (spelling for name in keys for spelling in _spellings(name)):
            pointer = "/" + key.replace("~", "~0").replace("/", "~1")
            session.run(
                "INSERT INTO found_ids " + _NAMED_KEY, [kind, pointer, "/traits" + pointer, place]
            )
            place += 3
    session.run(_NORMALISE, [_SPACE])
    _lower_beyond_ascii(session)


_NORMALISE = """
CREATE OR REPLACE TEMP TABLE load_ids AS
SELECT seq, collection, type,
       CASE WHEN type = 'email' THEN lower(trim(value, $1)) ELSE trim(value, $1) END AS value,
       min(place)::INTEGER AS place,
       any_value(CASE WHEN type = 'email' AND length(value) <> strlen(value)
                      THEN trim(value, $1) END) AS unlowered
FROM found_ids
WHERE value IS NOT NULL AND trim(value, $1) <> ''
GROUP BY ALL
"""


def _lower_beyond_ascii(session: Session) -> None:
    """Lower-case as Python does where SQL engines differ; only e-mails beyond ASCII come here."""
    found = session.fetch("SELECT DISTINCT unlowered FROM load_ids WHERE unlowered IS NOT NULL")
    if found.num_rows == 0:
        return
    for before in found.column(0).to_pylist():
        session.run("UPDATE load_ids SET value = $1 WHERE unlowered = $2", [before.lower(), before])


def _spellings(key: str) -> list[str]:
    """A key as snake_case and as camelCase.

    >>> _spellings("phone_number")
    ['phone_number', 'phoneNumber']
    >>> _spellings("loyaltyId")
    ['loyaltyId', 'loyalty_id']
    """
    snake = re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: "_" + match.group(1).lower(), key)
    head, *tail = snake.split("_")
    camel = head + "".join(part[:1].upper() + part[1:] for part in tail)
    return [key, *(other for other in (snake, camel) if other != key)]
