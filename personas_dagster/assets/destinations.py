"""Destinations: one asset each, downstream of every trait and audience connected to it."""

from typing import Any

import dagster as dg

from personas_dagster import deliver
from personas_dagster.assets import attempts
from personas_dagster.assets import metadata as show
from personas_dagster.assets.keys import Names, declared_at, owners
from personas_dagster.errors import Busy, Unauthorized
from personas_dagster.resources import SpaceResource
from personas_dagster.spaces import Space


def assets(space: Space, names: Names) -> list[dg.AssetsDefinition]:
    """One asset per destination that a connection leads to."""
    connected = {connection.destination for connection in space.connections.values()}
    return [_destination(space, names, name) for name in sorted(connected)]


def _destination(space: Space, names: Names, name: str) -> dg.AssetsDefinition:
    model = space.destinations[name]
    keys = [c.key for c in space.connections.values() if c.destination == name]

    @dg.asset(
        key=names.destination(name),
        deps=sorted({names.connected(key) for key in keys}),
        description=model.description or f"The {model.type} destination {name}.",
        group_name="destinations",
        owners=owners(None),
        kinds={model.type},
        metadata=declared_at(space.project.root, space.project.destinations[name]),
    )
    def destination(context: dg.AssetExecutionContext, space: SpaceResource) -> Any:
        try:
            report = deliver.deliver(
                space.open(),
                name,
                owner=context.run.run_id,
                now=space.now,
            )
        except Busy as error:
            context.log.info(f"waiting: {error}")
            raise attempts.when_free() from error
        except Unauthorized as error:
            raise attempts.for_good(context, error) from error
        return dg.MaterializeResult(
            metadata={
                **{name: n for name, n in report.counts.items() if isinstance(n, int)},
                "connections": show.table(deliver.rows(report)),
            }
        )

    return destination
