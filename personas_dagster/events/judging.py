"""The one pass of SQL over raw messages: their fields, their times, and what is wrong with them.

`MACROS` are made once in a session; `DECODE` reads `lines` (`lines.BATCH`) and `files` (what a
message takes over from its file). The SQL is DuckDB's and fixed.

What belongs here: what a message must be, and the words that say what it is not. What does not:
what SQL cannot settle, which `decoding` looks at line by line.
"""

MACROS = (
    """
    CREATE OR REPLACE TEMP MACRO json_kind(kind) AS CASE kind
        WHEN 'VARCHAR' THEN 'a string' WHEN 'BOOLEAN' THEN 'a boolean'
        WHEN 'OBJECT' THEN 'an object' WHEN 'ARRAY' THEN 'an array'
        WHEN 'NULL' THEN 'null' ELSE 'a number' END
    """,
    """
    CREATE OR REPLACE TEMP MACRO is_number(kind) AS kind IN ('BIGINT', 'UBIGINT', 'DOUBLE')
    """,
    # An id is a string, or a number in its shortest decimal form; an empty string is none.
    """
    CREATE OR REPLACE TEMP MACRO as_id(value, kind) AS CASE kind
        WHEN 'VARCHAR' THEN nullif(value, '')
        WHEN 'BIGINT' THEN value
        WHEN 'UBIGINT' THEN value
        WHEN 'DOUBLE' THEN CASE
            WHEN regexp_full_match(value, '-?[0-9]+') THEN value
            WHEN abs(try_cast(value AS DOUBLE)) < 1e38
                AND try_cast(value AS DOUBLE) = trunc(try_cast(value AS DOUBLE))
            THEN try_cast(try_cast(value AS DOUBLE) AS HUGEINT)::VARCHAR
            ELSE value END
        END
    """,
    # `TRY_CAST` alone would also take 'epoch', 'infinity' and '2024-1-1'.
    """
    CREATE OR REPLACE TEMP MACRO as_instant(value) AS CASE
        WHEN regexp_full_match(value, '\\d{4}-\\d{2}-\\d{2}([T ]\\d{2}:\\d{2}'
            || '(:\\d{2}([.,]\\d+)?)?( ?(Z|[+-]\\d{2}(:?\\d{2})?))?)?')
        THEN try_cast(replace(value, ',', '.') AS TIMESTAMPTZ) END
    """,
    """
    CREATE OR REPLACE TEMP MACRO wrong_id(field, kind) AS CASE
        WHEN kind IN ('BOOLEAN', 'OBJECT', 'ARRAY')
        THEN field || ': found ' || json_kind(kind) || ', not a string or number' END
    """,
    """
    CREATE OR REPLACE TEMP MACRO wrong_string(field, kind) AS CASE
        WHEN kind NOT IN ('VARCHAR', 'NULL')
        THEN field || ': found ' || json_kind(kind) || ', not a string' END
    """,
    """
    CREATE OR REPLACE TEMP MACRO wrong_object(field, kind) AS CASE
        WHEN kind NOT IN ('OBJECT', 'NULL')
        THEN field || ': found ' || json_kind(kind) || ', not an object' END
    """,
    """
    CREATE OR REPLACE TEMP MACRO bad_instant(field, value, parsed) AS CASE
        WHEN value IS NOT NULL AND parsed IS NULL
        THEN field || ': found "' || left(value, 60) || '", not ISO 8601' END
    """,
    """
    CREATE OR REPLACE TEMP MACRO too_early(field, instant) AS CASE
        WHEN instant < TIMESTAMPTZ '1970-01-01 00:00:00+00'
        THEN field || ': found ' || strftime(timezone('UTC', instant), '%Y-%m-%dT%H:%M:%SZ')
            || ', before 1970' END
    """,
    """
    CREATE OR REPLACE TEMP MACRO with_name(properties, name, key, own) AS CASE
        WHEN own[1] IS NOT NULL AND own[2] IS NOT NULL THEN properties
        ELSE '{'
            || CASE WHEN own[1] IS NULL THEN '"' || key || '":' || to_json(name) ELSE '' END
            || CASE WHEN own[1] IS NULL AND own[2] IS NULL THEN ',' ELSE '' END
            || CASE WHEN own[2] IS NULL THEN '"name":' || to_json(name) ELSE '' END
            || CASE WHEN coalesce(properties, '{}') = '{}' THEN '}'
                ELSE ',' || substr(properties, 2) END
        END
    """,
)

DECODE = """
WITH numbered AS (
    SELECT lines.*, files.* EXCLUDE (file_id),
        bad_reason IS NULL AND json_valid(raw) AS is_json
    FROM lines JOIN files USING (file_id)
),
parsed AS (
    SELECT *,
        CASE WHEN is_json THEN json_type(raw, [
            '$', '$.type', '$.messageId', '$.userId', '$.anonymousId', '$.groupId', '$.previousId',
            '$.event', '$.name', '$.timestamp', '$.originalTimestamp', '$.sentAt', '$.receivedAt',
            '$.properties', '$.traits', '$.context', '$.integrations'])
        END AS kinds,
        CASE WHEN is_json THEN json_transform(raw, '{
            "type": "VARCHAR", "messageId": "VARCHAR", "userId": "VARCHAR",
            "anonymousId": "VARCHAR", "groupId": "VARCHAR", "previousId": "VARCHAR",
            "event": "VARCHAR", "name": "VARCHAR", "timestamp": "VARCHAR",
            "originalTimestamp": "VARCHAR", "sentAt": "VARCHAR", "receivedAt": "VARCHAR",
            "properties": "JSON", "traits": "JSON", "context": "JSON", "integrations": "JSON"}')
        END AS message
    FROM numbered
),
named AS (
    SELECT file_id, line, raw, bad_reason, bad_detail, is_json,
        source_id, load_id, landed_at, max_properties, oversize_bytes,
        kinds[1] AS root_kind, kinds[2] AS type_kind, kinds[3] AS message_id_kind,
        kinds[4] AS user_id_kind, kinds[5] AS anonymous_id_kind, kinds[6] AS group_id_kind,
        kinds[7] AS previous_id_kind, kinds[8] AS event_kind, kinds[9] AS name_kind,
        kinds[10] AS timestamp_kind, kinds[11] AS original_kind, kinds[12] AS sent_kind,
        kinds[13] AS received_kind, kinds[14] AS properties_kind, kinds[15] AS traits_kind,
        kinds[16] AS context_kind, kinds[17] AS integrations_kind,
        CASE WHEN contains(message.context, '"groupId"')
            THEN nullif(json_type(message.context, '$.groupId'), 'NULL') END AS context_group_kind,
        message.type, message.event, nullif(message.name, '') AS name,
        message.timestamp AS timestamp_text, message.originalTimestamp AS original_text,
        message.sentAt AS sent_text, message.receivedAt AS received_text,
        as_instant(message.timestamp) AS own_timestamp,
        as_instant(message.originalTimestamp) AS original_timestamp,
        as_instant(message.sentAt) AS sent_at,
        as_instant(message.receivedAt) AS own_received_at,
        as_id(message.messageId, kinds[3]) AS message_id,
        as_id(message.userId, kinds[4]) AS user_id,
        as_id(message.anonymousId, kinds[5]) AS anonymous_id,
        as_id(message.groupId, kinds[6]) AS own_group_id,
        as_id(message.previousId, kinds[7]) AS previous_id,
        message.properties::VARCHAR AS properties, message.traits::VARCHAR AS traits,
        message.context::VARCHAR AS context, message.integrations::VARCHAR AS integrations
    FROM parsed
    WHERE CASE WHEN bad_reason IS NOT NULL OR is_json THEN true
        ELSE trim(raw, e' \\t\\r\\n') <> '' END
),
timed AS (
    SELECT *,
        CASE WHEN own_group_id IS NOT NULL OR context_group_kind IS NULL OR type = 'group'
            THEN own_group_id
            ELSE as_id(context ->> '$.groupId', context_group_kind) END AS group_id,
        coalesce(own_received_at, sent_at, own_timestamp, landed_at) AS received_at,
        CASE WHEN original_timestamp IS NOT NULL AND sent_at IS NOT NULL
            THEN make_timestamptz(
                epoch_us(coalesce(own_received_at, sent_at, own_timestamp, landed_at))
                - epoch_us(sent_at) + epoch_us(original_timestamp))
            ELSE coalesce(own_timestamp, own_received_at, sent_at, landed_at)
        END AS timestamp
    FROM named
),
judged AS (
    SELECT *,
        CASE
            WHEN bad_reason IS NOT NULL THEN {'reason': bad_reason, 'detail': bad_detail}
            WHEN NOT is_json
            THEN {'reason': 'not_json', 'detail': 'found ' || left(rtrim(raw, e'\\r\\n'), 60)}
            WHEN root_kind <> 'OBJECT'
            THEN {'reason': 'not_an_object', 'detail': 'found ' || json_kind(root_kind)}
            WHEN type_kind NOT IN ('VARCHAR', 'NULL')
            THEN {'reason': 'wrong_type', 'detail': wrong_string('type', type_kind)}
            WHEN coalesce(type, '') = ''
            THEN {'reason': 'missing_type', 'detail': 'type: found nothing'}
            WHEN type NOT IN ('identify', 'track', 'page', 'screen', 'group', 'alias')
            THEN {'reason': 'unknown_type', 'detail': 'type: found "' || left(type, 60) || '"'}
            WHEN coalesce(
                message_id_kind IN ('BOOLEAN', 'OBJECT', 'ARRAY')
                OR user_id_kind IN ('BOOLEAN', 'OBJECT', 'ARRAY')
                OR anonymous_id_kind IN ('BOOLEAN', 'OBJECT', 'ARRAY')
                OR group_id_kind IN ('BOOLEAN', 'OBJECT', 'ARRAY')
                OR previous_id_kind IN ('BOOLEAN', 'OBJECT', 'ARRAY')
                OR event_kind NOT IN ('VARCHAR', 'NULL')
                OR (name_kind NOT IN ('VARCHAR', 'NULL') AND type IN ('page', 'screen'))
                OR timestamp_kind NOT IN ('VARCHAR', 'NULL')
                OR original_kind NOT IN ('VARCHAR', 'NULL')
                OR sent_kind NOT IN ('VARCHAR', 'NULL')
                OR received_kind NOT IN ('VARCHAR', 'NULL')
                OR properties_kind NOT IN ('OBJECT', 'NULL')
                OR traits_kind NOT IN ('OBJECT', 'NULL')
                OR context_kind NOT IN ('OBJECT', 'NULL')
                OR integrations_kind NOT IN ('OBJECT', 'NULL'), false)
            THEN {'reason': 'wrong_type', 'detail': coalesce(
                wrong_id('messageId', message_id_kind), wrong_id('userId', user_id_kind),
                wrong_id('anonymousId', anonymous_id_kind), wrong_id('groupId', group_id_kind),
                wrong_id('previousId', previous_id_kind), wrong_string('event', event_kind),
                CASE WHEN type IN ('page', 'screen') THEN wrong_string('name', name_kind) END,
                wrong_string('timestamp', timestamp_kind),
                wrong_string('originalTimestamp', original_kind),
                wrong_string('sentAt', sent_kind), wrong_string('receivedAt', received_kind),
                wrong_object('properties', properties_kind), wrong_object('traits', traits_kind),
                wrong_object('context', context_kind),
                wrong_object('integrations', integrations_kind))}
            WHEN length(message_id) > 100
            THEN {'reason': 'message_id_too_long',
                'detail': 'messageId: found ' || length(message_id) || ' characters, at most 100'}
            WHEN type = 'track' AND coalesce(event, '') = ''
            THEN {'reason': 'missing_event', 'detail': 'event: found nothing'}
            WHEN type = 'alias' AND previous_id IS NULL
            THEN {'reason': 'missing_previous_id', 'detail': 'previousId: found nothing'}
            WHEN type = 'group' AND own_group_id IS NULL
            THEN {'reason': 'missing_group_id', 'detail': 'groupId: found nothing'}
            WHEN length(group_id) > 500
            THEN {'reason': 'group_id_too_long',
                'detail': CASE WHEN own_group_id IS NULL THEN 'context.groupId' ELSE 'groupId' END
                    || ': found ' || length(group_id) || ' characters, at most 500'}
            WHEN user_id IS NULL AND anonymous_id IS NULL AND type <> 'group'
                AND coalesce(json_array_length(context, '$.externalIds'), 0) = 0
            THEN {'reason': 'missing_ids',
                'detail': 'userId, anonymousId, context.externalIds: found nothing'}
            -- A key takes at least five bytes: short objects need not be counted.
            WHEN strlen(properties) > 4 * max_properties
                AND len(json_keys(properties)) > max_properties
            THEN {'reason': 'too_many_properties', 'detail': 'properties: found '
                || len(json_keys(properties)) || ' keys, at most ' || max_properties}
            WHEN strlen(traits) > 4 * max_properties AND len(json_keys(traits)) > max_properties
            THEN {'reason': 'too_many_traits', 'detail': 'traits: found '
                || len(json_keys(traits)) || ' keys, at most ' || max_properties}
            WHEN (timestamp_text IS NOT NULL AND own_timestamp IS NULL)
                OR (original_text IS NOT NULL AND original_timestamp IS NULL)
                OR (sent_text IS NOT NULL AND sent_at IS NULL)
                OR (received_text IS NOT NULL AND own_received_at IS NULL)
            THEN {'reason': 'bad_timestamp', 'detail': coalesce(
                bad_instant('timestamp', timestamp_text, own_timestamp),
                bad_instant('originalTimestamp', original_text, original_timestamp),
                bad_instant('sentAt', sent_text, sent_at),
                bad_instant('receivedAt', received_text, own_received_at))}
            WHEN coalesce(own_timestamp < TIMESTAMPTZ '1970-01-01 00:00:00+00', false)
                OR received_at < TIMESTAMPTZ '1970-01-01 00:00:00+00'
                OR timestamp < TIMESTAMPTZ '1970-01-01 00:00:00+00'
            THEN {'reason': 'bad_timestamp', 'detail': coalesce(
                too_early('timestamp', own_timestamp), too_early('receivedAt', received_at),
                too_early('timestamp (corrected by sentAt)', timestamp))}
            WHEN greatest(timestamp, received_at) >= TIMESTAMPTZ '9999-12-31 00:00:00+00'
            THEN {'reason': 'bad_timestamp',
                'detail': 'timestamp or receivedAt: found a time after 9999-12-30'}
        END AS verdict
    FROM timed
),
told AS (
    SELECT *, verdict.reason AS reason, verdict.detail AS detail,
        verdict.reason IS NULL AND message_id IS NULL AS needs_id,
        -- DuckDB's reader also takes NaN and Infinity, in any case, and commas before a closing
        -- bracket. The short texts are all spellings of `nan` and `inf`; searching for them is
        -- several times cheaper than the pattern, which few lines are left for.
        is_json AND CASE
            WHEN contains(raw, 'nan') OR contains(raw, 'Nan') OR contains(raw, 'nA')
                OR contains(raw, 'aN') OR contains(raw, 'NA') OR contains(raw, 'inf')
                OR contains(raw, 'Inf') OR contains(raw, 'iN') OR contains(raw, 'IN')
                OR contains(raw, 'nF')
            THEN regexp_matches(raw, '(?i)[\\[:,]\\s*-?(nan|inf)|,\\s*[\\]}]')
            ELSE regexp_matches(raw, ',\\s*[\\]}]') END AS is_suspect
    FROM judged
)
SELECT file_id, line, load_id, source_id, message_id, type,
    CASE type WHEN 'track' THEN event WHEN 'page' THEN 'Page Viewed'
        WHEN 'screen' THEN 'Screen Viewed' END AS event,
    user_id, anonymous_id, group_id, previous_id, timestamp, received_at, sent_at,
    original_timestamp,
    CASE WHEN name IS NULL OR reason IS NOT NULL THEN properties
        WHEN type = 'page' THEN with_name(properties, name, 'page_name',
            json_type(properties, ['$.page_name', '$.name']))
        WHEN type = 'screen' THEN with_name(properties, name, 'screen_name',
            json_type(properties, ['$.screen_name', '$.name']))
        ELSE properties
    END AS properties,
    traits, context, integrations,
    timezone('UTC', CASE
        WHEN reason IS NULL THEN received_at
        WHEN own_received_at BETWEEN TIMESTAMPTZ '1970-01-01 00:00:00+00'
            AND TIMESTAMPTZ '9999-12-30 23:59:59+00' THEN own_received_at
        ELSE landed_at END)::DATE AS received_date,
    reason, detail,
    CASE WHEN reason IS NOT NULL OR needs_id OR is_suspect THEN rtrim(raw, e'\\r\\n') END AS raw,
    coalesce(timestamp > received_at + INTERVAL 24 HOUR, false) AS clock_skew,
    CASE WHEN strlen(raw) > oversize_bytes
        THEN strlen(rtrim(raw, e'\\r\\n')) > oversize_bytes ELSE false END AS oversize,
    coalesce(group_id IS NULL AND (group_id_kind = 'VARCHAR' OR context_group_kind IS NOT NULL),
        false) AS empty_group_id,
    needs_id, is_suspect
FROM told
"""
