"""Personal data masked for those without the permission `pii`: e-mails and phone numbers.

What is masked: an e-mail address wherever it stands, also inside longer texts and URLs; phone
numbers; whatever has an e-mail's or phone's type or key. One set of patterns for Python and for
the engine (RE2 reads them as Python does). The SQL macros `shown_id`, `shown_text` and
`shown_value` have to be made in a session before anything can be shown from it, so that nothing
is shown raw by forgetting.
"""

from __future__ import annotations

import re

from personas_dagster.interfaces import Session

MASK = "***"

_PART = r"""[^\s"'\\<>()\[\]{},;:@/=?&%]"""
_EMAIL = rf"{_PART}+(?:@|%40){_PART}+"
_PLUS = r"\+[0-9](?:[ ().-]{0,2}[0-9]){6,14}"
# A whole text that is a phone number as people write it.
_WHOLE = r'"(?:[0(][0-9 ()./-]{6,18}[0-9]|[0-9]{3}[ .-][0-9]{3}[ .-][0-9]{4})"'
_PHONE_WORDS = r"(?i:phone|mobile|msisdn|whatsapp)"
_EMAIL_WORDS = r"(?i:e-?_?mail)"
_TEXT = r'"(?:[^"\\]|\\.)*"'
_NUMBER = r"[0-9]{7,15}"
_KEYED = (
    rf'("[^"\\]*(?:{_PHONE_WORDS}|{_EMAIL_WORDS})[^"\\]*"\s*:\s*)'
    rf"(?:{_TEXT}|\[\s*{_TEXT}(?:\s*,\s*{_TEXT})*\s*\]|{_NUMBER})"
)
_STEPS = (
    (_KEYED, rf'\1"{MASK}"'),
    (_EMAIL, MASK),
    (_PLUS, MASK),
    (_WHOLE, f'"{MASK}"'),
)
_COMPILED = [(re.compile(pattern), instead) for pattern, instead in _STEPS]
_PERSONAL = re.compile(rf"{_PHONE_WORDS}|{_EMAIL_WORDS}")
_PLAIN_VALUE = re.compile(r"true|false|null|-?[0-9.eE+-]{1,6}")


def is_personal(name: str) -> bool:
    """Whether a type, a key or a query's text is about an e-mail address or a phone."""
    return bool(_PERSONAL.search(name))


def mask_text(text: str) -> str:
    """A text, or JSON as text, with every e-mail address and phone number masked."""
    for pattern, instead in _COMPILED:
        text = pattern.sub(instead, text)
    return text


def mask_id(kind: str, value: str) -> str:
    """An identifier of a type."""
    return MASK if is_personal(kind) else mask_text(f'"{value}"')[1:-1]


def mask_value(key: str, value: str) -> str:
    """A value as JSON text under a key. Small numbers and booleans under any key stay."""
    if is_personal(key) and not _PLAIN_VALUE.fullmatch(value):
        return f'"{MASK}"'
    return mask_text(value)


def prepare(session: Session, *, has_pii: bool) -> None:
    """Make `shown_id(type, value)`, `shown_text(text)` and `shown_value(key, json)`."""
    if has_pii:
        bodies = {"shown_id": "value", "shown_text": "text", "shown_value": "value"}
    else:
        personal = f"regexp_matches({{}}, '{_PERSONAL.pattern}')"
        plain = f"regexp_full_match(value, '{_PLAIN_VALUE.pattern}')"
        bodies = {
            "shown_id": f"CASE WHEN {personal.format('type')} THEN '{MASK}' "
            f"ELSE substr({_masked(_QUOTED)}, 2, len({_masked(_QUOTED)}) - 2) END",
            "shown_text": _masked("text"),
            "shown_value": f"CASE WHEN {personal.format('key')} AND NOT {plain} "
            f"THEN '\"{MASK}\"' ELSE {_masked('value')} END",
        }
    for name, parameters in _MACROS.items():
        session.run(f"CREATE OR REPLACE TEMP MACRO {name}({parameters}) AS {bodies[name]}")


_MACROS = {"shown_id": "type, value", "shown_text": "text", "shown_value": "key, value"}
_QUOTED = "('\"' || value || '\"')"


def _masked(text: str) -> str:
    for pattern, instead in _STEPS:
        literal = pattern.replace("'", "''")
        text = f"regexp_replace({text}, '{literal}', '{instead}', 'g')"
    return text
