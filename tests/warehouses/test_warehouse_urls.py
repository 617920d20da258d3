import sys
import traceback

import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.exc import OperationalError

from personas_dagster.errors import WarehouseError
from personas_dagster.warehouses import open_warehouse

MARKER = "pl4nt3d m@rker/%"
QUOTED = "pl4nt3d%20m%40rker%2F%25"


def test_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(WarehouseError, match=r"pip install personas-dagster\[postgres\]"):
        open_warehouse("postgresql://user@localhost/db")


def test_missing_driver_without_extra() -> None:
    with pytest.raises(WarehouseError, match="pip install pymysql"):
        open_warehouse("mysql+pymysql://user@localhost/db")


def test_unknown_dialect() -> None:
    with pytest.raises(WarehouseError, match="no SQLAlchemy dialect is installed for nosql://"):
        open_warehouse("nosql://localhost")


@pytest.mark.parametrize(
    "url", ["", "warehouse", f"postgresql://u:{QUOTED}@host:port/db", f"postgresql://u:{MARKER}@h"]
)
def test_unreadable_url(url: str) -> None:
    with pytest.raises(WarehouseError) as caught:
        open_warehouse(url)
    assert "pl4nt3d" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{QUOTED}@127.0.0.1:1/db?connect_timeout=2",
        f"postgres://user@127.0.0.1:1/db?password={QUOTED}&connect_timeout=2",
    ],
)
def test_password_stays_hidden(url: str) -> None:
    warehouse = open_warehouse(SecretStr(url))
    with pytest.raises(WarehouseError) as caught, warehouse.stream("SELECT 1"):
        pass
    shown = "".join(traceback.format_exception(caught.value)) + repr(warehouse)
    assert "pl4nt3d" not in shown
    assert "warehouse postgresql" in str(caught.value)


def test_password_in_a_drivers_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        told = f"no way in with {MARKER} or {QUOTED}"
        raise OperationalError("SELECT 1", {}, Exception(told))

    warehouse = open_warehouse(f"postgresql://user:{QUOTED}@127.0.0.1:1/db")
    monkeypatch.setattr(sa.Engine, "connect", connect)
    with pytest.raises(WarehouseError, match=r"no way in with \*\*\* or \*\*\*") as caught:
        with warehouse.stream("SELECT 1"):
            pass
    assert "pl4nt3d" not in "".join(traceback.format_exception(caught.value))
