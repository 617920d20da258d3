"""The state database: registry, leases, loads, refreshes, deliveries, audit trail."""

from personas_dagster.state.leases import Lease
from personas_dagster.state.store import State

__all__ = ["Lease", "State"]
