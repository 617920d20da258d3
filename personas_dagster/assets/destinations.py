"""Destinations and connections as assets: one operation per destination delivers for all of them.

A connection lies between its trait or audience and its destination. Its checks say whether it was
delivered, held, or not as usual; `sensors/deliveries.py` alerts on them.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import dagster as dg

from personas_dagster import deliver
from personas_dagster.activation.report import ConnectionReport, SyncReport
from personas_dagster.assets import attempts
from personas_dagster.assets import metadata as show
from personas_dagster.assets.keys import Names, declared_at, owners
from personas_dagster.errors import Busy, PersonasError, Unauthorized
from personas_dagster.resources import SpaceResource
from personas_dagster.spaces import Space
from personas_dagster.timing import held_since

GROUP = "destinations"
DELIVERED, BREAKER, USUAL = "delivered", "circuit_breaker", "as_usual"
_CHECKS = {
    DELIVERED: "Every row that was due reached the tool, or was refused for good.",
    BREAKER: "The circuit breaker let the changes pass.",
    USUAL: "The number of changes, and the audience's size, are as usual.",
}
Result: TypeAlias = dg.MaterializeResult[Any] | dg.AssetCheckResult
_SIMULATED = "**SIMULATED: nothing reaches the tool.** "


def assets(space: Space, names: Names) -> list[dg.AssetsDefinition]:
    """One operation per destination that a connection leads to."""
    connected = {connection.destination for connection in space.connections.values()}
    return [_destination(space, names, name) for name in sorted(connected)]


def _specs(space: Space, names: Names, name: str) -> Iterator[dg.AssetSpec]:
    model, declared = space.destinations[name], space.project.destinations[name]
    own = [one for one in space.connections.values() if one.destination == name]
    warning = _SIMULATED if space.simulation else ""
    kinds = {model.type, *(["simulated"] if space.simulation else [])}
    for one in own:
        yield dg.AssetSpec(
            names.connection(one.name),
            deps=[names.connected(one.key)],
            description=f"{warning}{one.key} to {name}.",
            group_name=GROUP,
            owners=owners(None),
            kinds=kinds,
            metadata=declared_at(space.project.root, space.project.connections[one.name]),
            skippable=True,
        )
    yield dg.AssetSpec(
        names.destination(name),
        deps=[names.connection(one.name) for one in own],
        description=warning + (model.description or f"The {model.type} destination {name}."),
        group_name=GROUP,
        owners=owners(None),
        kinds=kinds,
        metadata=declared_at(space.project.root, declared),
        skippable=True,
    )


def _destination(space: Space, names: Names, name: str) -> dg.AssetsDefinition:
    specs = list(_specs(space, names, name))
    checks = [
        dg.AssetCheckSpec(check, asset=spec.key, description=description)
        for spec in specs
        if spec.key != names.destination(name)
        for check, description in _CHECKS.items()
    ]

    @dg.multi_asset(
        name=names.destination(name).to_python_identifier(),
        specs=specs,
        check_specs=checks,
        can_subset=True,
    )
    def destination(context: dg.AssetExecutionContext, space: SpaceResource) -> Iterator[Any]:
        for result in _synced(context, space, names, name):
            if _is_selected(context, result):
                yield result
            else:  # it happened too, and is shown
                context.log_event(_logged(result))

    return destination


def _synced(
    context: dg.AssetExecutionContext, space: SpaceResource, names: Names, name: str
) -> Iterator[Result]:
    """A sync for all connections where the destination is selected, else for those selected."""
    opened = space.open()
    if opened.simulation is not None:
        shown = opened.simulation.shown_at(opened.name, name)
        context.log.warning(f"SIMULATED: {name} is not reached; see {shown}")
    wanted = {*context.selected_asset_keys}
    is_whole = names.destination(name) in wanted
    wanted |= {check.asset_key for check in context.selected_asset_check_keys}
    own = [
        one.name
        for one in opened.connections.values()
        if one.destination == name and (is_whole or names.connection(one.name) in wanted)
    ]
    try:
        report = deliver.deliver(
            opened,
            name,
            owner=context.run.run_id,
            now=space.now,
            only=own,
            attempt=attempts.attempt(context),
        )
    except Busy as error:
        context.log.info(f"waiting: {error}")
        raise attempts.when_free() from error
    except PersonasError as error:
        yield from _undelivered(opened, names, own, error, context)
        if isinstance(error, Unauthorized):
            raise attempts.for_good(context, error) from error
        raise
    if report.skipped:
        context.log.info(report.skipped)
        yield from _skipped(names, own, report.skipped)
        return
    yield from _connections(opened, names, report, at=space.now())
    if is_whole and not report.failed:
        yield _whole(opened, names, report, at=space.now())
    reason = deliver.failure(report)
    if reason:
        _observe(opened, names, report, reason, context)
        failure = PersonasError(reason)
        raise attempts.for_good(context, failure) if report.needs_setup_only else failure


def _is_selected(context: dg.AssetExecutionContext, result: Result) -> bool:
    if isinstance(result, dg.MaterializeResult):
        return result.asset_key in context.selected_asset_keys
    return _check(result) in context.selected_asset_check_keys


def _logged(result: Result) -> Any:
    """A result as an event beside those that the operation returns."""
    assert result.asset_key is not None
    if isinstance(result, dg.MaterializeResult):
        return dg.AssetMaterialization(result.asset_key, metadata=result.metadata)
    return dg.AssetCheckEvaluation(
        result.asset_key,
        _check(result).name,
        result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
    )


def _check(result: dg.AssetCheckResult) -> dg.AssetCheckKey:
    assert result.asset_key is not None and result.check_name is not None
    return dg.AssetCheckKey(result.asset_key, result.check_name)


def _connections(
    space: Space, names: Names, report: SyncReport, *, at: dt.datetime
) -> Iterator[Result]:
    """A materialisation of what was synced; what is held keeps the one that it has."""
    for one in report.connections.values():
        if not one.held and not one.needs:
            yield dg.MaterializeResult(
                asset_key=names.connection(one.name), metadata=_metadata(one, at)
            )
        yield from _judged(space, names, report, one, at)


def _whole(
    space: Space, names: Names, report: SyncReport, *, at: dt.datetime
) -> dg.MaterializeResult[Any]:
    """A materialisation of the destination."""
    simulated = space.simulation
    return dg.MaterializeResult(
        asset_key=names.destination(report.destination),
        metadata={
            **{name: n for name, n in report.counts.items() if isinstance(n, int)},
            "last_sync": dg.MetadataValue.timestamp(at),
            "connections": show.table(deliver.rows(report)),
            **_attempts(report),
            **(
                {"simulated": simulated.shown_at(space.name, report.destination)}
                if simulated
                else {}
            ),
        },
    )


def _metadata(one: ConnectionReport, at: dt.datetime) -> dict[str, Any]:
    found: dict[str, Any] = {
        "last_sync": dg.MetadataValue.timestamp(at),
        "dagster/row_count": one.members,
        "messages": one.messages,
        "confirmed": one.confirmed,
        "rejected": one.rejected,
        "failed": one.failed,
        "by_reason": show.table([{"reason": k, "rows": v} for k, v in sorted(one.sent.items())]),
        "not_sendable": show.table(
            [{"reason": k, "profiles": v} for k, v in sorted(one.not_sendable.items())]
        ),
    }
    if one.samples:
        found["failures"] = show.table(
            [
                {"profile": sample.profile_id, "outcome": sample.outcome, "said": sample.detail}
                for sample in one.samples
            ]
        )
    return found


def _judged(
    space: Space, names: Names, report: SyncReport, one: ConnectionReport, at: dt.datetime
) -> Iterator[dg.AssetCheckResult]:
    key = names.connection(one.name)
    yield dg.AssetCheckResult(
        asset_key=key,
        check_name=DELIVERED,
        passed=not one.failed and not one.needs and not (report.stopped and one.postponed),
        description=f"{one.failed} failed" if one.failed else one.needs or report.stopped,
        metadata=_attempts(report),
    )
    since = held_since(space, report.destination, one.name) or at
    yield dg.AssetCheckResult(
        asset_key=key,
        check_name=BREAKER,
        passed=not one.held,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"held: {one.held}" if one.held else None,
        metadata={"since": dg.MetadataValue.timestamp(since)} if one.held else {},
    )
    odd = [str(found) for found in deliver.unusual(space, report) if found.connection == one.name]
    yield dg.AssetCheckResult(
        asset_key=key,
        check_name=USUAL,
        passed=not odd,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(odd) or None,
    )


def _attempts(report: SyncReport) -> dict[str, Any]:
    """What was said by attempts that failed, where some did."""
    if not report.failed_attempts:
        return {}
    rows = [{"said": k, "attempts": v} for k, v in report.failed_attempts.most_common()]
    return {"failed_attempts": report.failed_attempts.total(), "said": show.table(rows)}


def _skipped(names: Names, own: Sequence[str], why: str) -> Iterator[dg.AssetCheckResult]:
    for name in own:
        for check in _CHECKS:
            yield dg.AssetCheckResult(
                asset_key=names.connection(name),
                check_name=check,
                passed=True,
                description=f"nothing was done: {why}",
            )


def _undelivered(
    space: Space,
    names: Names,
    own: Sequence[str],
    error: PersonasError,
    context: dg.AssetExecutionContext,
) -> Iterator[dg.AssetCheckResult]:
    """A sync that never got to a report: all its connections are as they were."""
    for name in own:
        context.log_event(_observation(names, space.connections[name].key, name, str(error)))
        yield dg.AssetCheckResult(
            asset_key=names.connection(name),
            check_name=DELIVERED,
            passed=False,
            description=str(error),
        )


def _observe(
    space: Space,
    names: Names,
    report: SyncReport,
    reason: str,
    context: dg.AssetExecutionContext,
) -> None:
    """A hard failure also shows on the traits and audiences that were to be told."""
    for one in report.connections.values():
        if one.failed or one.needs or (report.stopped and one.postponed):
            key = space.connections[one.name].key
            context.log_event(_observation(names, key, one.name, reason))


def _observation(names: Names, key: str, connection: str, reason: str) -> dg.AssetObservation:
    return dg.AssetObservation(
        names.connected(key),
        description=f"not delivered by connection {connection}",
        metadata={"not_delivered": reason, "connection": connection},
    )
