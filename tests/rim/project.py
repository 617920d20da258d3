"""A project whose jobs run in this process, on a Dagster instance in memory."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa

from personas_dagster.assets.keys import Names
from personas_dagster.definitions import build
from personas_dagster.resources import space as resource
from personas_dagster.resources.space import AS_OF_TAG
from personas_dagster.spaces import Space, open_space
from personas_dagster.state.schema import leases

ROOT = Path(__file__).parents[2]
DECLARED = ("assets", "resources", "sensors", "workspace.yaml", "dagster.yaml")
DAY = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


class Project:
    """A copy of the repository's own declarations in a folder; its spaces are empty."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in DECLARED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name)
            else:
                shutil.copy(source, root / name)
        self.instance = dg.DagsterInstance.ephemeral()

    def write(self, path: str, text: str) -> None:
        """A declaration; what was read before is forgotten, as when a location is reloaded."""
        (self.root / path).write_text(text, encoding="utf-8")
        resource.declared.cache_clear()
        resource.opened.cache_clear()

    def amend(self, path: str, old: str, new: str) -> None:
        before = (self.root / path).read_text(encoding="utf-8")
        assert old in before
        self.write(path, before.replace(old, new))

    def space(self, name: str = "development") -> Space:
        return open_space(resource.declared(self.root), name)

    def put(self, *rows: Mapping[str, Any], name: str, space: str = "development") -> None:
        """A file of messages, into the folder where anybody may put one."""
        incoming = self.space(space).landing.incoming
        incoming.mkdir(parents=True, exist_ok=True)
        (incoming / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(
        self,
        job: str = "refresh",
        *,
        hours: int = 0,
        select: Sequence[str] = (),
        space: str = "development",
        tags: Mapping[str, str] | None = None,
        partition: str | None = None,
        checks: bool = True,
        log_level: str = "CRITICAL",
    ) -> dg.ExecuteInProcessResult:
        """Run a job, as of so many hours after `DAY`; `select`: only these assets."""
        names = Names(self.space(space))
        as_of = DAY + dt.timedelta(hours=hours)
        chosen = [names.key(*one.split("/")) for one in select] or None
        definitions = build(self.root, space, **({} if checks else {"asset_checks": []}))
        if job == "__ASSET_JOB":
            found = definitions.get_repository_def().get_implicit_job_def_for_assets(chosen or [])
            assert found is not None
        else:
            found = definitions.resolve_job_def(job)
        return found.execute_in_process(
            instance=self.instance,
            tags={AS_OF_TAG: as_of.isoformat(), **(tags or {})},
            asset_selection=chosen,
            partition_key=partition,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": log_level}}}},
        )

    def rows(self, query: str, space: str = "development") -> list[dict[str, Any]]:
        """What readers see."""
        with self.space(space).session() as session:
            found: list[dict[str, Any]] = session.fetch(query).to_pylist()
        return found

    def members(self, audience: str) -> int:
        query = f"SELECT count(*) AS n FROM members WHERE audience = '{audience}'"
        return int(self.rows(query)[0]["n"])

    def leases(self, space: str = "development") -> list[str]:
        return [row["name"] for row in self.space(space).state.rows(sa.select(leases))]


def materialised(result: dg.ExecuteInProcessResult) -> list[str]:
    """The assets with a materialisation event, without their space."""
    events = result.get_asset_materialization_events()
    keys = {event.asset_key for event in events if event.asset_key is not None}
    return sorted("/".join(key.path[1:]) for key in keys)


def order(
    user: str, *, revenue: float, day: int = 1, month: int = 2, hour: int = 10, **more: Any
) -> dict[str, Any]:
    """An order of a user, of the year 2026."""
    at = f"2026-{month:02d}-{day:02d}T{hour:02d}:00:00Z"
    return {
        "type": "track",
        "event": "Order Completed",
        "messageId": f"{user}-{at}-{revenue}",
        "userId": user,
        "timestamp": at,
        "receivedAt": at,
        "properties": {"revenue": revenue},
        **more,
    }


def orders(users: Iterable[int], *, revenue: float = 50, day: int = 1) -> list[dict[str, Any]]:
    return [order(f"user-{n}", revenue=revenue, day=day) for n in users]


def reason(result: dg.ExecuteInProcessResult) -> str:
    """Why a run failed; empty if it did not."""
    found = []
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data and data.user_failure_data.description:
                found.append(data.user_failure_data.description)
            elif data.error is not None:
                found.append((data.error.cause or data.error).message)
    return "\n".join(found)
