"""What is masked, in Python and in the engine alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personas_dagster import masking
from personas_dagster.engines.duckdb import DuckDBEngine, DuckDBSession
from personas_dagster.lake import DeltaLake

TEXTS = [
    ('{"email":"ann@example.com","n":1}', '{"email":"***","n":1}'),
    ('{"url":"https://x.test/?e=ann%40example.com&a=1"}', '{"url":"https://x.test/?e=***&a=1"}'),
    ('{"note":"write to ann@example.com or +49 (151) 234-5678"}', '{"note":"write to *** or ***"}'),
    ('{"phone":"0151 1234567","workMobile":49151234567}', '{"phone":"***","workMobile":"***"}'),
    ('{"phones":["1","2"],"has_phone":true}', '{"phones":"***","has_phone":true}'),
    ('{"emails_opened":33,"emailed_at":"x"}', '{"emails_opened":33,"emailed_at":"***"}'),
    ('{"at":"2026-03-01T12:00:00Z","zip":"01234"}', '{"at":"2026-03-01T12:00:00Z","zip":"01234"}'),
    ('["0151 1234567","555-123-4567"]', '["***","***"]'),
]
IDS = [
    ("email", "ann@example.com", "***"),
    ("user_id", "ann@example.com", "***"),
    ("user_id", "42", "42"),
    ("home_phone", "1", "***"),
    ("device", "+491511234567", "***"),
]
VALUES = [
    ("email", '"ann"', '"***"'),
    ("phone", "491511234567", '"***"'),
    ("emails_opened", "33", "33"),
    ("has_email", "true", "true"),
    ("contact", '"ann@example.com"', '"***"'),
    ("name", '"Ann"', '"Ann"'),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBSession]:
    with DuckDBEngine(threads=1).session(DeltaLake(tmp_path_factory.mktemp("lake"))) as session:
        masking.prepare(session, has_pii=False)
        yield session


def shown(engine: DuckDBSession, call: str, *values: str) -> str:
    found = engine.fetch(f"SELECT {call} AS shown", list(values)).column(0)[0].as_py()
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize(("text", "masked"), TEXTS)
def test_text(engine: DuckDBSession, text: str, masked: str) -> None:
    assert masking.mask_text(text) == masked
    assert shown(engine, "shown_text($1)", text) == masked


@pytest.mark.parametrize(("kind", "value", "masked"), IDS)
def test_identifier(engine: DuckDBSession, kind: str, value: str, masked: str) -> None:
    assert masking.mask_id(kind, value) == masked
    assert shown(engine, "shown_id($1, $2)", kind, value) == masked


@pytest.mark.parametrize(("key", "value", "masked"), VALUES)
def test_value(engine: DuckDBSession, key: str, value: str, masked: str) -> None:
    assert masking.mask_value(key, value) == masked
    assert shown(engine, "shown_value($1, $2)", key, value) == masked


@given(st.text(alphabet='ab0123456789+@%40.- ()"{}[]:,\\éemailphon', max_size=40))
def test_engine_masks_as_python_does(engine: DuckDBSession, text: str) -> None:
    assert shown(engine, "shown_text($1)", text) == masking.mask_text(text)


def test_raw_with_the_permission(engine: DuckDBSession) -> None:
    masking.prepare(engine, has_pii=True)
    try:
        assert shown(engine, "shown_id($1, $2)", "email", "a@b") == "a@b"
    finally:
        masking.prepare(engine, has_pii=False)
