"""Engines: they run SQL over the lake's files and keep nothing."""

from personas_dagster.engines.duckdb import DuckDBEngine

__all__ = ["DuckDBEngine"]
