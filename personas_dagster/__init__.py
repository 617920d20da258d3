"""Personas on Dagster: a customer data platform as software-defined assets."""

__version__ = "0.1.0"
