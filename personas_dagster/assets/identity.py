"""The identity graph: candidates, the checks that guard them, the graph."""

import shlex
from collections.abc import Mapping
from typing import Any

import dagster as dg

from personas_dagster import refresh
from personas_dagster.assets import drawing
from personas_dagster.assets import metadata as show
from personas_dagster.assets.attempts import for_good, never_again
from personas_dagster.assets.keys import Names, owners
from personas_dagster.errors import CheckFailed
from personas_dagster.identity.guard import CHECKS
from personas_dagster.masking import mask_id
from personas_dagster.resources import SpaceResource
from personas_dagster.spaces import Space

GROUP = "identity"
HUBS = "hub_identifiers"
_HUBS_TOLD = 5


def assets(names: Names) -> list[dg.AssetsDefinition]:
    """`merge_candidates` and `identity_graph`."""
    candidates = names.key("merge_candidates")

    @dg.asset(
        key=candidates,
        # A refresh does not run raw_events, so that the order hangs on landing.
        deps=[names.key("raw_events"), names.key("landing")],
        description="What the messages that are not in the graph yet would do to it: profiles, "
        "identifiers, merges, and identifiers that merge protection removes.",
        group_name=GROUP,
        owners=owners(None),
        kinds={"deltalake", "duckdb"},
    )
    def merge_candidates(context: dg.AssetExecutionContext, space: SpaceResource) -> Any:
        held = space.hold(context)
        rebuilt = show.rebuilt(refresh.derive_anew(held, now=space.now()))
        proposal = refresh.propose(held, now=space.now())
        if proposal is None:
            return dg.MaterializeResult(metadata={"load_id": "no new messages", **rebuilt})
        return dg.MaterializeResult(
            metadata={
                **rebuilt,
                "load_id": proposal.load_id,
                "dagster/row_count": proposal.messages,
                "messages_without_profile": proposal.without_profile,
                **{f"new_{name}": count for name, count in proposal.counts.items()},
                "merges_prevented": drawing.bars(
                    dict(proposal.dropped_by_limit), title="identifiers dropped, by limit"
                ),
                "hub_identifiers": show.table([_proposed(hub) for hub in proposal.hubs]),
            }
        )

    @dg.asset(
        key=names.key("identity_graph"),
        deps=[candidates],
        description="Profiles, identifiers, merges, links between users and accounts, and the "
        "identifiers that protection dropped. Takes only candidates whose checks passed.",
        group_name=GROUP,
        owners=owners(None),
        kinds={"deltalake"},
    )
    def identity_graph(context: dg.AssetExecutionContext, space: SpaceResource) -> Any:
        held, this = space.begin(context)
        try:
            applied = refresh.apply(held, now=space.now())
        except CheckFailed as error:
            raise for_good(context, error) from error
        if applied is None:
            return dg.MaterializeResult(metadata={"load_id": "no new messages"})
        refresh.note(held, this, identity=dict(applied.rows))
        profiles = sorted(applied.totals["profiles"].items())
        kinds = sorted(applied.totals["identifiers"].items(), key=lambda kind: -kind[1])
        return dg.MaterializeResult(
            metadata={
                "load_id": applied.load_id,
                **{f"new_{name}": rows for name, rows in applied.rows.items()},
                **{f"{collection}_now": count for collection, count in profiles},
                "identifiers": drawing.bars(dict(kinds), title="identifiers by type"),
                "digests": dg.MetadataValue.json(dict(applied.digests)),
            }
        )

    return [merge_candidates, identity_graph]


def checks(names: Names) -> list[dg.AssetChecksDefinition]:
    """The blocking check, whose suite holds all rules that guard merges, and one on hubs."""

    @dg.asset_check(
        asset=names.key("merge_candidates"),
        name="merge_guard",
        blocking=True,
        description="Great Expectations suite over the candidates: " + " ".join(CHECKS.values()),
    )
    def merge_guard(context: dg.AssetCheckExecutionContext, space: SpaceResource) -> Any:
        verdict = refresh.check(space.hold(context))
        if verdict is None:
            return dg.AssetCheckResult(passed=True, description="no candidates wait")
        if not verdict.passed:
            never_again(context)
        failed = [finding for finding in verdict.findings if not finding.passed]
        good = len(verdict.findings) - len(failed)
        return dg.AssetCheckResult(
            passed=verdict.passed,
            description=verdict.reason or f"{good}/{len(verdict.findings)} expectations passed",
            metadata={
                "load_id": verdict.load_id,
                "expectations": show.table(
                    [
                        {
                            "ok": finding.passed,
                            "rule": CHECKS[finding.check],
                            "offending": finding.offending,
                            "observed": finding.observed,
                            "identifiers": ", ".join(finding.sample),
                        }
                        for finding in sorted(verdict.findings, key=lambda f: f.passed)
                    ]
                ),
            },
        )

    @dg.asset_check(
        asset=names.key("merge_candidates"),
        name=HUBS,
        description="No identifier stands beside unusually many others (`hub_degree`): a shared "
        "device, a team mailbox. Nothing changes until a person decides.",
    )
    def hub_identifiers(context: dg.AssetCheckExecutionContext, space: SpaceResource) -> Any:
        held = space.hold(context)
        found = refresh.hubs(held)
        new = [hub for hub in found if hub["new"]]
        lines = [
            f"{hub['type']}:{_shown(held, hub)} stands beside {hub['degree']} others"
            for hub in new[:_HUBS_TOLD]
        ]
        return dg.AssetCheckResult(
            passed=not found,
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(lines) or f"{len(found)} hubs, all known from earlier loads",
            metadata={
                "new": len(new),
                "hubs": show.table([_proposed(hub) for hub in found]),
            },
        )

    return [merge_guard, hub_identifiers]


def _shown(space: Space, hub: Mapping[str, Any]) -> str:
    """A hub's value; masked for those without the permission `pii`, since alerts repeat it."""
    value = str(hub["value"])
    return value if space.operator_has_pii else mask_id(str(hub["type"]), value)


def _proposed(hub: Mapping[str, Any]) -> dict[str, Any]:
    """A hub with what a person may do about it."""
    name = shlex.quote(f"{hub['type']}:{hub['value']}")
    return {**hub, "decide": f"personas identity block {name} (or allow)"}
