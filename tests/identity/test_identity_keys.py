"""Profiles' ids and identifiers as pairs of integers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from personas_dagster.engines import DuckDBEngine
from personas_dagster.errors import LakeUnavailable
from personas_dagster.identity import keys
from personas_dagster.identity.touched import read_touched
from personas_dagster.lake import DeltaLake
from personas_dagster.lake.halves import halves_sql, id_sql
from personas_dagster.lake.tables import TABLES

IDS = sorted([hashlib.md5(bytes([n])).hexdigest() for n in range(200)] + ["0" * 32, "f" * 32])


def test_ids_and_their_halves() -> None:
    high, low = keys.halves(pa.array(IDS))
    assert keys.texts(high, low).to_pylist() == IDS
    assert (high[1:] >= high[:-1]).all()  # in the order of the texts
    some, _ = keys.halves(pa.array(IDS).slice(3, 5))
    assert some.tolist() == high[3:8].tolist()
    assert keys.texts(*keys.halves(pa.array([], pa.string()))).to_pylist() == []


def test_a_text_that_is_no_id() -> None:
    with pytest.raises(ValueError, match="32"):
        keys.halves(pa.array([*IDS, "p1"]))


def test_sql_and_arrays_agree(tmp_path: Path) -> None:
    texts = ["", "u1", "é\x1f1", "a" * 3000]
    named = pa.table({"id": [3, 0, 2, 1], "type": ["email", "user_id", "x", "e"], "value": texts})
    with DuckDBEngine().session(DeltaLake(tmp_path)) as session:
        session.register("ids", pa.table({"profile_id": [*IDS, "p1"]}))
        high, low = halves_sql("profile_id")
        found = session.fetch(
            f"SELECT high, low, {id_sql('high', 'low')} AS text "
            f"FROM (SELECT {high} AS high, {low} AS low FROM ids) ORDER BY high, low"
        )
        assert [found.column(i).to_pylist()[:-1] for i in (0, 1)] == [
            half.tolist() for half in keys.halves(pa.array(IDS))
        ]
        assert found.column("text").to_pylist() == [*IDS, None]
        by_array = keys.identifier_keys(session, named, "users")
        high, low = keys.key_sql("'users'", "type", "value")
        by_sql = session.fetch(f"SELECT {high}, {low} FROM named ORDER BY id")
        assert [by_sql.column(i).to_pylist() for i in (0, 1)] == [k.tolist() for k in by_array]
        assert by_array[0].tolist() != keys.identifier_keys(session, named, "accounts")[0].tolist()


def test_a_graph_of_an_earlier_version_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    schema = TABLES["identifiers"].schema
    lake.append("identifiers", pa.Table.from_pylist([dict.fromkeys(schema.names)], schema))
    names = pa.table({"id": [0], "key_high": [1], "key_low": [2]})
    with DuckDBEngine().session(lake) as session:
        for table in ("identifiers", "merges", "profiles"):
            session.view(table)
        with pytest.raises(LakeUnavailable, match="personas identity rebuild"):
            read_touched(session, names)
