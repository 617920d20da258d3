"""Custom traits, and one shared operation for all computed traits and audiences."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from personas_dagster import refresh, unset
from personas_dagster.alerting import tell_all
from personas_dagster.assets import drawing
from personas_dagster.assets import metadata as show
from personas_dagster.assets.keys import Names, declared_at, owners
from personas_dagster.errors import PersonasError
from personas_dagster.freshness import freshness
from personas_dagster.query import Definition, check, order
from personas_dagster.resources import SpaceResource
from personas_dagster.resources.event_batches import together
from personas_dagster.spaces import Space
from personas_dagster.traits.compute import Computed
from personas_dagster.traits.standing import Check

COMPUTE = "compute"
CHECK = "values_that_stand"


def assets(space: Space, names: Names) -> list[dg.AssetsDefinition]:
    """`custom_traits`, and the operation behind every computed trait and audience."""
    return [_custom_traits(names), _compute(space, names)]


def _custom_traits(names: Names) -> dg.AssetsDefinition:
    @dg.asset(
        key=names.key("custom_traits"),
        deps=[names.key("events")],
        description="Traits that identify and group messages carry; the newest value holds.",
        group_name="traits",
        owners=owners(None),
        kinds={"deltalake", "duckdb"},
        check_specs=[_check_spec(names.key("custom_traits"))],
    )
    def custom_traits(context: dg.AssetExecutionContext, space: SpaceResource) -> Iterator[Any]:
        held, this = space.begin(context)
        done = refresh.custom_traits(held, this)
        if done.check and done.check.wrong:
            _alert(context, held, done.check)
        if not runs(context, COMPUTE):
            refresh.finish(held, this, now=space.now())
        yield _checked(names.key("custom_traits"), done.check, done.touched)
        yield dg.MaterializeResult(
            metadata={
                "as_of": dg.MetadataValue.timestamp(this.as_of),
                "values_changed": sum(done.changed.values()),
                "changes": drawing.bars(done.changed, title="profiles that changed, by trait"),
            }
        )

    return custom_traits


def runs(context: dg.AssetExecutionContext, stage: str) -> bool:
    """Whether this run executes a stage: a run may select some, or go on from where one failed."""
    chosen = context.run.step_keys_to_execute
    return any(
        node.name.endswith(f"__{stage}") and (chosen is None or node.name in chosen)
        for node in context.job_def.nodes
    )


def _compute(space: Space, names: Names) -> dg.AssetsDefinition:
    memberships, changes = names.key("audience_memberships"), names.key("audience_changes")
    specs = [_spec(space, names, definition) for definition in space.definitions]
    specs += [
        dg.AssetSpec(
            memberships,
            deps=[names.key("custom_traits"), *map(names.audience, space.audience_keys)],
            description="Who is in which audience, and since when.",
            group_name="audiences",
            owners=owners(None),
            kinds={"deltalake"},
            skippable=True,
        ),
        dg.AssetSpec(
            changes,
            deps=[memberships],
            description="Who entered and who exited, at which refresh.",
            group_name="audiences",
            owners=owners(None),
            kinds={"deltalake"},
            skippable=True,
        ),
        dg.AssetSpec(
            names.key("published"),
            deps=[
                changes,
                *map(names.trait, space.computed_keys),
                *map(names.audience, space.audience_keys),
            ],
            description="What readers see: the versions of all tables, as of one instant. Every "
            "refresh publishes, also one that changed nothing.",
            group_name="serving",
            owners=owners(None),
            kinds={"deltalake"},
        ),
    ]

    @dg.multi_asset(
        name=f"{space.name}__{COMPUTE}",
        specs=specs,
        check_specs=[_check_spec(memberships)],
        can_subset=True,
    )
    def compute(context: dg.AssetExecutionContext, space: SpaceResource) -> Iterator[Any]:
        held, this = space.begin(context)
        if not runs(context, "custom_traits"):  # what is published holds them, or says they failed
            done = refresh.custom_traits(held, this)
            if done.check and done.check.wrong:
                _alert(context, held, done.check)
        chosen = {key.path[-1] for key in context.selected_asset_keys}
        computed = refresh.compute_definitions(held, this, only=chosen)
        versions = refresh.finish(held, this, now=space.now())
        if any(one.name == CHECK for one in context.selected_asset_check_keys):
            yield _checked(memberships, computed.check, computed.touched)
        if computed.check and computed.check.wrong:
            _alert(context, held, computed.check)
        stale = {
            key: "; ".join(fresh.stale)
            for key, fresh in freshness(held, now=space.now()).items()
            if fresh.is_stale
        }
        with together(context.instance):
            for result in _results(held, names, this, computed, stale):
                if result.asset_key in context.selected_asset_keys:
                    yield result
        if names.key("published") in context.selected_asset_keys:
            yield dg.MaterializeResult(
                asset_key=names.key("published"),
                metadata={
                    "as_of": dg.MetadataValue.timestamp(this.as_of),
                    "refresh_id": this.refresh_id,
                    "versions": dg.MetadataValue.json(versions),
                    "stale": show.table([{"key": k, "why": why} for k, why in stale.items()]),
                    "unset": show.table(
                        [
                            {"definition": key, "warning": text}
                            for key, texts in unset.warnings(held, held.definitions).items()
                            for text in texts
                        ]
                    ),
                },
            )

    return compute


def _check_spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        CHECK,
        asset=asset,
        description="Values that stand since an earlier refresh are those that computing them "
        "again gives, on a sample of profiles that nothing touched.",
    )


def _checked(asset: dg.AssetKey, found: Check | None, touched: int | None) -> dg.AssetCheckResult:
    """Whether leaving profiles out was right. If not, the next refresh computes all of them."""
    if found is None:
        return dg.AssetCheckResult(
            asset_key=asset,
            check_name=CHECK,
            passed=True,
            description="all profiles were computed",
        )
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=CHECK,
        passed=not found.wrong,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(found.wrong)} values of {found.profiles} profiles were not what is "
        "stored; they are mended, and the next refresh computes all profiles"
        if found.wrong
        else None,
        metadata={
            "profiles_computed": touched or 0,
            "profiles_checked": found.profiles,
            "wrong": show.table([{"key": k, "profile_id": p} for k, p in found.wrong[:20]]),
        },
    )


def _alert(context: dg.AssetExecutionContext, space: Space, found: Check) -> None:
    """The run goes on: what was wrong is mended already."""
    title = f"{space.name}: stored values were wrong"
    body = (
        f"{len(found.wrong)} values of {found.profiles} profiles that nothing touched were not "
        f"what is stored, such as {found.wrong[0][0]} of {found.wrong[0][1]}. They are mended, and "
        f"the next refresh computes all profiles.\nRun: {context.run.run_id}"
    )
    urls = space.project.alerts.urls
    try:
        if urls:
            tell_all(urls, title=title, body=body)
    except PersonasError as error:
        context.log.error(f"{error}")


def _spec(space: Space, names: Names, definition: Definition) -> dg.AssetSpec:
    """One trait or audience as an asset; its dependencies are those of its query."""
    project = space.project
    is_audience = definition.kind == "audience"
    declared: Any = (project.audiences if is_audience else project.computed_traits)[definition.key]
    checked = check(definition)
    deps = {names.key("events"), names.key("identity_graph")}
    own = {one.key: one for one in space.definitions}
    for reference in checked.references:
        if reference in own:
            kind = names.audience if own[reference].kind == "audience" else names.trait
            deps.add(kind(reference))
        else:
            deps.add(names.key("custom_traits"))
            deps.update(names.sql_trait(key) for key in space.sql_traits)
    return dg.AssetSpec(
        names.audience(definition.key) if is_audience else names.trait(definition.key),
        deps=sorted(deps),
        description=(declared.model.description + "\n\n" if declared.model.description else "")
        + f"```\n{definition.query.strip()}\n```",
        group_name="audiences" if is_audience else "computed_traits",
        owners=owners(declared.model.owner),
        kinds={"deltalake", "duckdb", definition.kind},
        tags={tag: "" for tag in declared.model.tags},
        metadata={"collection": definition.collection, **declared_at(project.root, declared)},
        skippable=True,
    )


def _results(
    space: Space,
    names: Names,
    this: refresh.Refresh,
    computed: Computed,
    stale: Mapping[str, str],
) -> Iterator[dg.MaterializeResult[Any]]:
    """A materialisation where something changed, and none where nothing did.

    Those that others read come first, level by level: Dagster looks up what each was made from.
    """
    as_of = dg.MetadataValue.timestamp(this.as_of)
    moved = {k: m for k, m in computed.movements.items() if m.entered or m.exited}
    sizes = refresh.sizes(space, moved)

    def trait(key: str) -> dict[str, Any]:
        values = computed.distributions.get(key, ())
        return {
            "dagster/row_count": computed.traits_held.get(key, 0),
            "profiles_changed": computed.traits_changed[key],
            "profiles_computed": "all" if computed.touched is None else computed.touched,
            "distribution": show.table(values),
            "plot": drawing.distribution(values, title="profiles by value"),
        }

    def audience(key: str) -> dict[str, Any]:
        return {
            "dagster/row_count": moved[key].size,
            "entered": moved[key].entered,
            "exited": moved[key].exited,
            "over_time": drawing.over_time(sizes[key], title="members by refresh"),
        }

    for level in order(space.definitions):
        for key in (one.key for one in level):
            why = {"stale": stale[key]} if key in stale else {}
            if computed.traits_changed.get(key):
                yield dg.MaterializeResult(
                    asset_key=names.trait(key), metadata={"as_of": as_of, **trait(key), **why}
                )
            if key in moved:
                yield dg.MaterializeResult(
                    asset_key=names.audience(key), metadata={"as_of": as_of, **audience(key), **why}
                )
    if moved:
        members = {key: m.size for key, m in sorted(computed.movements.items())}
        yield dg.MaterializeResult(
            asset_key=names.key("audience_memberships"),
            metadata={
                "as_of": as_of,
                "dagster/row_count": sum(members.values()),
                "sizes": drawing.bars(members, title="members by audience"),
                "table_size": show.size(space.lake.bytes("audience_memberships")),
            },
        )
        yield dg.MaterializeResult(
            asset_key=names.key("audience_changes"),
            metadata={
                "as_of": as_of,
                "dagster/row_count": sum(m.entered + m.exited for m in moved.values()),
                "changes": show.table(
                    [
                        {"audience": k, "entered": m.entered, "exited": m.exited, "size": m.size}
                        for k, m in sorted(moved.items())
                    ]
                ),
            },
        )
