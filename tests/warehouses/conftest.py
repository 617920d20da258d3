import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from personas_dagster.warehouses import Warehouse, open_warehouse


@pytest.fixture
def sqlite(tmp_path: Path) -> Warehouse:
    """A database of 25,000 users, one of whom has no score."""
    path = tmp_path / "warehouse.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE users (user_id TEXT, score INTEGER, ltv REAL, note TEXT)")
        rows = [(f"u{n}", None if n == 7 else n, n / 2, "100% :ok") for n in range(25_000)]
        database.executemany("INSERT INTO users VALUES (?, ?, ?, ?)", rows)
    database.close()
    return open_warehouse(f"sqlite:///{path}")


@pytest.fixture(scope="session")
def postgres_url() -> str:
    url = os.environ.get("PERSONAS_TEST_POSTGRES_URL")
    if not url:
        pytest.skip("PERSONAS_TEST_POSTGRES_URL is not set")
    return url


@pytest.fixture
def postgres_table(postgres_url: str) -> Iterator[str]:
    """The name of a table of 25,000 rows, which the test may try to harm."""
    url = sa.make_url(postgres_url).set(drivername="postgresql+psycopg")
    engine, name = sa.create_engine(url), f"personas_test_{os.getpid()}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
        connection.exec_driver_sql(
            f"CREATE TABLE {name} AS SELECT n, 'u' || n AS user_id FROM generate_series(1, 25000) n"
        )
    yield name
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE {name}")
    engine.dispose()
