"""The lake: Delta tables in a folder or an object store."""

from personas_dagster.lake.delta import DeltaLake
from personas_dagster.lake.tables import TABLES, Table

__all__ = ["TABLES", "DeltaLake", "Table"]
