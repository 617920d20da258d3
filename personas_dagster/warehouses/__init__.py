"""Where SQL traits read from: any SQLAlchemy URL, or the space's own lake. Read only."""

from personas_dagster.warehouses.database import Warehouse, open_warehouse
from personas_dagster.warehouses.lake import LakeWarehouse, lake_warehouse

__all__ = ["LakeWarehouse", "Warehouse", "lake_warehouse", "open_warehouse"]
