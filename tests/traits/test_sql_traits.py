import datetime as dt
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from personas_dagster.engines import DuckDBEngine
from personas_dagster.errors import WarehouseError
from personas_dagster.identity.views import prepare
from personas_dagster.lake import DeltaLake
from personas_dagster.lake.tables import TABLES
from personas_dagster.traits import sql_rules
from personas_dagster.traits.sql import (
    SqlTraitQuery,
    SqlTraitReport,
    SqlTraitsRefresh,
    preview,
    refresh_sql_trait,
    refresh_sql_traits,
    write_messages,
)

NOW = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
KNOWN = ("user_id", "email", "anonymous_id", "group_id")
# Profile, collection, type, value, and the day on which the identifier was first seen.
GRAPH = [
    ("ann", "users", "user_id", "u1", 1),
    ("ann", "users", "email", "ann@x.org", 5),
    ("bob", "users", "user_id", "u2", 2),
    ("bob2", "users", "user_id", "u9", 9),  # merged into bob
    ("cat", "users", "anonymous_id", "a3", 3),
    ("acme", "accounts", "group_id", "acme", 1),
]
ENGINE = DuckDBEngine(threads=1)


class Space:
    """A lake with that graph, and one refresh after another."""

    def __init__(self, root: Path) -> None:
        self.lake, self.refreshes, self.path = DeltaLake(root / "lake"), 0, root / "said.jsonl"

    def make(self) -> None:
        when = [dt.datetime(2024, 1, day, tzinfo=dt.UTC) for *_, day in GRAPH]
        profiles = {name: (kind, at) for (name, kind, *_), at in zip(GRAPH, when, strict=True)}
        self._append(
            "profiles",
            [
                {"profile_id": name, "collection": kind, "created_at": at}
                for name, (kind, at) in profiles.items()
            ],
        )
        names = ("profile_id", "collection", "type", "value")
        self._append(
            "identifiers",
            [
                {**dict(zip(names, row, strict=False)), "first_seen_at": at}
                for row, at in zip(GRAPH, when, strict=True)
            ],
        )
        self._append("merges", [{"parent_id": "bob", "child_id": "bob2", "collection": "users"}])
        link = {"user_profile_id": "ann", "account_profile_id": "acme", "first_at": when[0]}
        self._append("account_links", [link])

    def _append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.lake.append(name, pa.Table.from_pylist(list(rows), schema=TABLES[name].schema))

    def refresh(self, again: bool = False, **results: pa.Table | Exception) -> SqlTraitsRefresh:
        """One refresh of the SQL traits named."""
        self.refreshes += not again
        queries = [SqlTraitQuery(key, opening(result)) for key, result in results.items()]
        with ENGINE.session(self.lake) as session:
            prepare(session)
            done = refresh_sql_traits(
                session, self.lake, queries, known_types=KNOWN, at=NOW, refresh_id=self.refreshes,
                files={key: f"sql_traits/{key}.sql" for key in ("one", "two")},
            )  # fmt: skip
            self.path.unlink(missing_ok=True)
            assert write_messages(session, self.path) == done.messages
        return done

    def store(self, result: pa.Table, key: str = "ltv") -> SqlTraitReport:
        done = self.refresh(**{key: result})
        assert done.errors == {}
        return done.reports[key]

    def messages(self) -> list[dict[str, Any]]:
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        return [json.loads(line) for line in lines]

    def log(self) -> list[tuple[str, str, str]]:
        """(profile, key, value) of the last refresh."""
        with ENGINE.session(self.lake) as session:
            session.view("sql_traits")
            rows = session.fetch(
                "SELECT profile_id, key, value FROM sql_traits WHERE refresh_id = $1 ORDER BY ALL",
                [self.refreshes],
            ).to_pylist()
        return [(row["profile_id"], row["key"], row["value"]) for row in rows]


def opening(result: pa.Table | Exception) -> Any:
    @contextmanager
    def opened() -> Iterator[pa.RecordBatchReader]:
        if isinstance(result, Exception):
            raise result
        yield result.to_reader(max_chunksize=2)

    return opened


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    Space(root).make()
    return root


@pytest.fixture
def space(made: Path, tmp_path: Path) -> Space:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Space(tmp_path)


def users(*ids: Any, **columns: Any) -> pa.Table:
    return pa.table({"user_id": list(ids), **(columns or {"ltv": [1] * len(ids)})})


def refused(space: Space, result: pa.Table, message: str) -> None:
    done = space.refresh(ltv=result)
    assert done.reports == {} and space.log() == [] and done.messages == 0
    with pytest.raises(WarehouseError, match=f"^SQL trait `ltv`: .*{message}"):
        raise done.errors["ltv"]


def test_stores_values(space: Space) -> None:
    report = space.store(users("u1", "u2", ltv=[1.5, 2.0], plan=["pro", None]))
    assert space.log() == [("ann", "ltv", "1.5"), ("ann", "plan", '"pro"'), ("bob", "ltv", "2")]
    assert report == SqlTraitReport(
        key="ltv",
        collection="users",
        rows=2,
        columns=("ltv", "plan"),
        changed={"ltv": 2, "plan": 1},
        unknown=0,
        too_large=0,
        too_large_samples=(),
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pa.scalar(15.0), "15"),
        (pa.scalar(2**60), str(2**60)),
        (pa.scalar(0.1), "0.1"),
        (pa.scalar(True), "true"),
        (pa.scalar('say "ü"\n'), r'"say \"ü\"\n"'),
        (pa.scalar(dt.date(2024, 1, 2)), '"2024-01-02"'),
        (pa.scalar(dt.datetime(2024, 1, 2, 3, 4, 5)), '"2024-01-02T03:04:05Z"'),
        (pa.scalar(dt.datetime(2024, 1, 2, 3, 4, 5, 500, dt.UTC)), '"2024-01-02T03:04:05.0005Z"'),
        (pa.scalar("12.50").cast(pa.decimal128(9, 2)), "12.5"),
    ],
)
def test_writes_json(space: Space, value: pa.Scalar, expected: str) -> None:
    space.store(users("u1", ltv=pa.array([value.as_py()], value.type)))
    assert space.log() == [("ann", "ltv", expected)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_no_value(space: Space, value: float | None) -> None:
    space.store(users("u1", ltv=pa.array([value], pa.float64())))
    assert space.log() == []


def test_only_changes_count(space: Space) -> None:
    space.store(users("u1", "u2", ltv=[1, 2]))
    assert space.store(users("u1", "u2", ltv=[1, 2])).changed == {}
    assert space.store(users("u1", "u2", ltv=[1, 3])).changed == {"ltv": 1}
    assert space.log() == [("bob", "ltv", "3")]


def test_no_longer_returned(space: Space) -> None:
    space.store(users("u1", "u2", ltv=[1, 2], plan=["a", "b"]))
    assert space.store(users("u1", ltv=[1], plan=["a"])).changed == {"ltv": 1, "plan": 1}
    assert space.log() == [("bob", "ltv", "null"), ("bob", "plan", "null")]
    assert space.store(users("u1", ltv=[1], plan=["a"])).changed == {}


def test_nothing_returned(space: Space) -> None:
    space.store(users("u1"))
    assert space.store(users(ltv=pa.array([], pa.int64()))).changed == {"ltv": 1}


def test_column_no_longer_returned(space: Space) -> None:
    space.refresh(ltv=users("u1", ltv=[1], plan=["a"]), other=users("u1", color=["red"]))
    assert space.store(users("u1", ltv=[1])).changed == {"plan": 1}
    assert space.log() == [("ann", "plan", "null")]


def test_other_key_column(space: Space) -> None:
    space.store(users("u1"))
    space.store(pa.table({"group_id": ["acme"], "ltv": [7]}))
    assert space.log() == [("acme", "ltv", "7"), ("ann", "ltv", "null")]


@pytest.mark.parametrize(
    ("column", "value", "profile"),
    [
        ("email", " ANN@X.org ", "ann"),
        ("anonymous_id", "a3", "cat"),
        ("group_id", "acme", "acme"),
        ("user_id", "u9", "bob"),
    ],
)
def test_each_identifier(space: Space, column: str, value: str, profile: str) -> None:
    space.store(pa.table({column: [value], "ltv": [1]}))
    assert space.log() == [(profile, "ltv", "1")]
    assert space.messages() == []


def test_rows_of_one_profile(space: Space) -> None:
    """The row whose identifier was first seen last holds, whatever their order."""
    space.store(users("u9", "u2", ltv=[9, None], plan=[None, "b"]))
    assert space.log() == [("bob", "ltv", "9")]
    assert space.store(users("u2", "u9", ltv=[None, 9], plan=["b", None])).changed == {}


def test_unknown_identifier(space: Space) -> None:
    report = space.store(users("u1", 'new "ü"', ltv=[1, 2]))
    assert report.unknown == 1
    assert space.log() == [("ann", "ltv", "1")]
    first = space.messages()
    assert first == [
        {
            "type": "identify",
            "messageId": first[0]["messageId"],
            "timestamp": "2024-05-01T12:00:00.000000Z",
            "receivedAt": "2024-05-01T12:00:00.000000Z",
            "context": {
                "externalIds": [
                    {
                        "id": 'new "ü"',
                        "type": "user_id",
                        "collection": "users",
                        "encoding": "none",
                    }
                ]
            },
            "traits": {},
        }
    ]
    space.store(users('new "ü"', ltv=[5]))
    assert space.messages() == first


def test_unknown_account(space: Space) -> None:
    assert space.store(pa.table({"group_id": [15], "seats": [3]})).unknown == 1
    (message,) = space.messages()
    assert (message["type"], message["groupId"]) == ("group", "15")
    assert message["context"] == {"externalIds": []}


def test_unknown_identifier_beside_the_key(space: Space) -> None:
    result = pa.table({"user_id": ["u1", "u2"], "email": ["ann@x.org", "Bob@x.org"], "ltv": [1, 2]})
    assert space.store(result).unknown == 0
    assert space.log() == [("ann", "ltv", "1"), ("bob", "ltv", "2")]
    (message,) = space.messages()
    assert [i["id"] for i in message["context"]["externalIds"]] == ["u2", "bob@x.org"]


def test_identifiers_of_two_profiles(space: Space) -> None:
    space.store(pa.table({"user_id": ["u2"], "email": ["ann@x.org"], "ltv": [1]}))
    assert space.log() == [("bob", "ltv", "1")]
    assert len(space.messages()) == 1


def test_no_email_beside_the_key(space: Space) -> None:
    space.store(pa.table({"user_id": ["u1"], "email": pa.array([None], pa.string()), "ltv": [1]}))
    assert space.log() == [("ann", "ltv", "1")]
    assert space.messages() == []


def test_links_user_to_account(space: Space) -> None:
    result = pa.table(
        {
            "user_id": ["u1", "u1", "u2", "u2"],
            "group_id": ["acme", "apex", "acme", None],
            "ltv": [1, 2, 3, 4],
        }
    )
    space.store(result)
    assert space.log() == [("ann", "ltv", "2"), ("bob", "ltv", "3")]
    told = [
        (m["type"], m["groupId"], [i["id"] for i in m["context"]["externalIds"]])
        for m in space.messages()
    ]
    assert sorted(told) == [("group", "acme", ["u2"]), ("group", "apex", ["u1"])]


def test_same_pair_twice(space: Space) -> None:
    result = pa.table({"user_id": ["u1", "u1"], "group_id": ["acme", "acme"], "ltv": [1, 2]})
    refused(space, result, 'pairs of `user_id` and `group_id`.*{"user_id": "u1", "group_id"')


def test_one_fails(space: Space) -> None:
    done = space.refresh(
        bad=users("u1", "u1", bad=[1, 2]),
        down=WarehouseError("warehouse is down"),
        good=users("u1", good=[1]),
    )
    assert list(done.reports) == ["good"]
    assert sorted(done.errors) == ["bad", "down"]
    assert str(done.errors["down"]) == "SQL trait `down`: warehouse is down"
    assert space.log() == [("ann", "good", "1")]


def test_failure_keeps_values(space: Space) -> None:
    space.store(users("u1"))
    refused(space, users("u1", "u1"), "no duplicate identifiers")
    assert space.store(users("u1")).changed == {}


def test_one_column_in_two(space: Space) -> None:
    done = space.refresh(one=users("u1", ltv=[1]), two=users("u1", ltv=[2]))
    assert space.log() == [("ann", "ltv", "1")]
    assert str(done.errors["two"]) == (
        "SQL trait `two`: column `ltv` of sql_traits/two.sql is a trait of the SQL trait `one` "
        "of sql_traits/one.sql already; rename it with AS"
    )


def test_one_column_in_two_runs(space: Space) -> None:
    """It stays the first one's, also when that does not run now; until it gives the column up."""
    space.refresh(one=users("u1", ltv=[1]))
    done = space.refresh(two=users("u1", ltv=[2]))
    assert "of sql_traits/one.sql already" in str(done.errors["two"]) and not done.reports
    assert space.log() == []
    done = space.refresh(one=users("u1", other=[1]), two=users("u1", ltv=[2]))
    assert not done.errors
    assert space.log() == [("ann", "ltv", "2"), ("ann", "other", "1")]


def test_column_of_one_that_is_gone(space: Space) -> None:
    space.refresh(gone=users("u1", ltv=[1]))
    assert not space.refresh(two=users("u1", ltv=[2])).errors
    assert space.log() == [("ann", "ltv", "2")]


def test_one_append_of_a_refresh(space: Space) -> None:
    space.refresh(one=users("u1", one=[1]), two=WarehouseError("down"))
    done = space.refresh(again=True, one=users("u1", one=[1]), two=users("u1", two=[2]))
    assert list(done.reports) == ["one"]
    assert "refresh 1 has written its SQL traits already" in str(done.errors["two"])
    assert space.store(users("u1", two=[2]), "two").changed == {"two": 1}


def test_single(space: Space) -> None:
    with ENGINE.session(space.lake) as session:
        prepare(session)

        def run(result: pa.Table, refresh_id: int) -> SqlTraitReport:
            return refresh_sql_trait(
                session,
                space.lake,
                key="ltv",
                reader=result.to_reader(),
                known_types=KNOWN,
                at=NOW,
                refresh_id=refresh_id,
            )

        assert run(users("u1"), 1).changed == {"ltv": 1}
        with pytest.raises(WarehouseError, match="SQL trait `ltv`: no null"):
            run(users("u1", None), 2)


def test_too_large_row(space: Space) -> None:
    fits = "x" * (sql_rules.MAX_ROW_BYTES - len("u1") - len('""'))
    report = space.store(users("u1", "u2", "new", ltv=[fits, fits + "x", fits]))
    assert [profile for profile, *_ in space.log()] == ["ann"]
    assert (report.rows, report.too_large, report.unknown) == (3, 2, 0)
    assert report.too_large_samples[0].startswith('{"user_id": "u2", "ltv": "xxx')
    assert space.messages() == []


def test_preview(space: Space) -> None:
    result = users("u1", *[f"new{n}" for n in range(30)])
    with ENGINE.session(space.lake) as session:
        prepare(session)
        rows = preview(session, result.to_reader(max_chunksize=7), KNOWN)
    assert len(rows) == 20
    assert (rows[0].profile_id, rows[1].profile_id) == ("ann", None)
    assert rows[0].identifiers == {"user_id": "u1"}
    assert rows[0].values == {"ltv": "1"}
    assert space.lake.versions().get("sql_traits") is None


# The rules on rows; those on columns are in test_sql_traits_columns.py.


def test_null_identifier(space: Space) -> None:
    result = users("u1", None, "  ", ltv=[1, 2, 3])
    refused(space, result, r'no null .*: 2 rows .*\{"user_id": null, "ltv": 2\}; ')


def test_duplicate_identifier(space: Space) -> None:
    result = pa.table({"email": ["a@x.org", "A@x.org "], "ltv": [1, 2]})
    refused(space, result, r'no duplicate .*: 1 values of `email`.*"ltv": 1\}; .*"ltv": 2\};')


def test_too_many_rows(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_rules, "MAX_ROWS", 3)
    refused(space, users("u1", "u2", "u3", "u4"), "at most 3 rows")


@pytest.mark.parametrize("value", [15, 15.0, "15", " 15\u2003"])
def test_spelling_of_identifiers(space: Space, value: object) -> None:
    space.store(users(value))
    assert space.messages()[0]["context"]["externalIds"][0]["id"] == "15"


def test_reader_fails(space: Space) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield from users("u1").to_batches()
        raise WarehouseError("connection lost")

    reader = pa.RecordBatchReader.from_batches(users("u1").schema, batches())
    with ENGINE.session(space.lake) as session:
        prepare(session)
        query = SqlTraitQuery("ltv", lambda: nullcontext(reader))
        done = refresh_sql_traits(
            session, space.lake, [query], known_types=KNOWN, at=NOW, refresh_id=1
        )
    assert str(done.errors["ltv"]) == "SQL trait `ltv`: connection lost"
    assert space.log() == []
