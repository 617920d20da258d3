"""What tests of several folders share: a project in a temporary folder, and the real data.

Great Expectations judges only where a test starts a process of ours: the suite takes seconds to
load, and `test_judging` shows that it says what the findings say.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from personas_dagster import refresh
from personas_dagster.identity import loads
from personas_dagster.identity.guard import Finding, Verdict
from personas_dagster.state import State
from tests.examples import register
from tests.place import Place

register()


def plain_judge(load_id: int, findings: Sequence[Finding]) -> Verdict:
    """What the suite says, without the seconds it takes to load."""
    return Verdict(load_id, all(finding.passed for finding in findings), tuple(findings))


@pytest.fixture(scope="session", autouse=True)
def judge_plainly() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loads, "judge", plain_judge)
        patch.setattr(refresh, "warm", lambda: None)
        yield


@pytest.fixture(scope="session")
def empty_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated state database, to be copied: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("state") / "state.db"
    State(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def new_place(tmp_path_factory: pytest.TempPathFactory, empty_state: Path) -> Callable[[], Place]:
    """A new project, in a folder of its own."""
    return lambda: Place(tmp_path_factory.mktemp("project"), empty_state)


@pytest.fixture
def place(new_place: Callable[[], Place]) -> Place:
    return new_place()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real data beside the checkout."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data is not at {folder}")
    return folder


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A database of its own on the server that PERSONAS_TEST_POSTGRES_URL names."""
    with postgres_database() as url:
        yield url


_CLIENTS = sa.text("SELECT query FROM pg_stat_activity WHERE datname = :name")


@contextmanager
def postgres_database() -> Iterator[str]:
    """What `postgres_url` is, for fixtures that last longer than a test."""
    server = os.environ.get("PERSONAS_TEST_POSTGRES_URL")
    if not server:
        pytest.skip("PERSONAS_TEST_POSTGRES_URL is not set")
    name = f"personas_test_{uuid.uuid4().hex[:12]}"
    url = sa.make_url(server).set(drivername="postgresql+psycopg")
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
        # Said here: the garbage collector would say it later, in another test.
        with admin.connect() as connection:
            for _ in range(100):  # the server takes note of a closed one a little later
                left = connection.execute(_CLIENTS, {"name": name}).scalars().all()
                if not left:
                    break
                time.sleep(0.05)
        assert not left, f"connections left open, last used for: {left}"
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()
