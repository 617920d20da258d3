"""Definitions changed by a program: the same files that people keep in version control.

What belongs here: which file a change goes to, and whether it may be made. A change is tried on
a copy of all declarations first, as `personas check` reads them; nothing is written unless it
holds.
"""

from __future__ import annotations

import datetime as dt
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock

from personas_dagster.errors import Busy, DefinitionError, PersonasError
from personas_dagster.freshness import EVALUATED, Freshness
from personas_dagster.project import editing, models
from personas_dagster.project.declared import Declared, definition_of
from personas_dagster.project.loader import load_project, read_project
from personas_dagster.spaces import Space, data_folder, destination_problems, open_space
from personas_dagster.state.schema import audit, refreshes, registry

_DECLARED = ("assets", "resources", "sensors")
_FIXED = frozenset({"key", "query", "collection", "name", "enabled"})
_KEY = re.compile(r"[a-z][a-z0-9_]{0,99}")
_AUDITED = "definition"
_LOOK_AT = 200  # refreshes since an edit: the first of them computes it, if they are of all
Model = models.Audience | models.ComputedTrait


@dataclass(frozen=True)
class Kind:
    """A kind of definition: where its files are, and what the registry calls it."""

    name: str
    folder: str
    model: type[models.Audience] | type[models.ComputedTrait]

    def all(self, space: Space) -> dict[str, Declared[Any]]:
        """The definitions that the space may see, by key; also those that are switched off."""
        found: Mapping[str, Declared[Any]] = getattr(space.project, self.folder)
        return {
            key: one
            for key, one in found.items()
            if one.model.spaces is None or space.name in one.model.spaces
        }


AUDIENCES = Kind("audience", "audiences", models.Audience)
COMPUTED_TRAITS = Kind("computed trait", "computed_traits", models.ComputedTrait)


class Missing(PersonasError):
    """There is no definition under this key."""


class Conflict(PersonasError):
    """What is there does not allow the change."""


def fresh(space: Space) -> Space:
    """The space as its files declare it now. Its stores stay the ones that are open."""
    opened = open_space(load_project(space.project.root), space.name)
    opened.__dict__["state"] = space.state
    return opened


def described(space: Space, kind: Kind, key: str, fresh: Mapping[str, Freshness]) -> dict[str, Any]:
    """A definition, and where its computation stands. `Missing` when there is none.

    `fresh`: what `freshness` says of the space's definitions.
    """
    declared = kind.all(space).get(key)
    if declared is None:
        raise Missing(f"there is no {kind.name} `{key}` in space {space.name}")
    model: Model = declared.model
    options = model.model_dump(mode="json", exclude_unset=True, by_alias=True)
    return {
        "key": key,
        "name": model.name or key,
        "definition": {"query": model.text, "type": model.collection.upper()},
        "enabled": model.enabled,
        "options": {name: value for name, value in options.items() if name not in _FIXED},
        "file": str(declared.path),
        "status": _status(space, model, fresh.get(key)),
    }


def _status(space: Space, model: Model, fresh: Freshness | None) -> dict[str, Any]:
    """`computed` (as it is now, by a refresh), `waiting` (for the next one) or `disabled`."""
    if not model.enabled or fresh is None:
        return {"state": "disabled", "as_of": None, "size": None}
    query = sa.select(registry.c.definition).where(
        registry.c.key == model.key, registry.c.deleted_at.is_(None)
    )
    known = space.state.rows(query)
    as_it_is = {"query": model.text.strip(), "collection": model.collection}
    changed = not known or known[0]["definition"] != as_it_is
    if fresh.as_of is None or changed or _is_locked(space, model.key):
        return {"state": "waiting", "as_of": None, "size": None}
    as_of = fresh.as_of.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"state": "computed", "as_of": as_of, "size": fresh.size, **fresh.as_json()}


def _is_locked(space: Space, key: str) -> bool:
    """Whether it was edited, and no refresh that began later has evaluated it."""
    edits = sa.select(sa.func.max(audit.c.at).label("at")).where(
        audit.c.what == _AUDITED, audit.c.subject == key, audit.c.outcome == "edited"
    )
    edited_at = space.state.rows(edits)[0]["at"]
    if edited_at is None:
        return False
    later = sa.select(refreshes.c.counts).where(
        refreshes.c.status == "finished", refreshes.c.started_at > edited_at
    )
    later = later.order_by(refreshes.c.refresh_id).limit(_LOOK_AT)
    return not any(
        key in (row["counts"] or {}).get(EVALUATED, ()) for row in space.state.rows(later)
    )


def create(
    space: Space, kind: Kind, fields: Mapping[str, Any], *, by: str, now: dt.datetime
) -> str:
    """Write a new definition, of this space alone; returns its key.

    `fields` are the file's. DefinitionError lists what is wrong with it.
    """
    key = fields.get("key") or re.sub(r"[^a-z0-9]+", "_", fields["name"].lower()).strip("_")
    if not _KEY.fullmatch(key):
        raise PersonasError(f"key: found `{key}`, expected a small letter, then letters, digits, _")
    with _one_at_a_time(space.project.root) as project_root:
        here = fresh(space)
        path = project_root / "assets" / kind.folder / f"{key}.yaml"
        taken = {*here.project.audiences, *here.project.computed_traits, *here.project.sql_traits}
        if key in taken or path.exists():
            raise Conflict(f"key `{key}` is in use; choose another one")
        text = editing.changed(
            "", {**fields, "key": key, "spaces": fields.get("spaces") or [space.name]}
        )
        _own_spaces(fields, space)
        _try(project_root, path, text, reused=(here, kind, key))
        editing.write(path, text)
        space.state.audit(_AUDITED, key, at=now, outcome="created", reason=f"by {by}")
    return key


def change(
    space: Space, kind: Kind, key: str, fields: Mapping[str, Any], *, by: str, now: dt.datetime
) -> None:
    """Set fields of a definition's file; None takes a field out.

    `Busy` when its query was edited before and that is not computed yet.
    """
    with _one_at_a_time(space.project.root) as root:
        here = fresh(space)
        declared = _owned(here, kind, key)
        _own_spaces(fields, space)
        path = root / declared.path
        before = path.read_text(encoding="utf-8-sig")
        if "query" in fields:
            fields = {**fields, **dict.fromkeys(declared.model.ready_made)}
        edits = fields.keys() & {"query", "collection"}
        if edits and declared.model.enabled and _is_locked(space, key):
            raise Busy(
                f"{kind.name} `{key}` was edited and is not computed yet; it can be edited again "
                "when the next refresh has finished"
            )
        text = editing.changed(before, fields)
        _try(root, path, text, reused=(here, kind, key))
        editing.write(path, text)
        outcome = "edited" if edits else "changed"
        space.state.audit(_AUDITED, key, at=now, outcome=outcome, reason=f"by {by}")


def delete(space: Space, kind: Kind, key: str, *, by: str, now: dt.datetime) -> None:
    """Remove a definition's file. Its last values stay on the profiles as custom traits."""
    with _one_at_a_time(space.project.root) as root:
        declared = _owned(fresh(space), kind, key)
        path = root / declared.path
        _try(root, path, None)
        path.unlink()
        space.state.audit(_AUDITED, key, at=now, outcome="deleted", reason=f"by {by}")


def _owned(space: Space, kind: Kind, key: str) -> Declared[Any]:
    """A definition that no other space has: nothing crosses from one space to another."""
    declared = kind.all(space).get(key)
    if declared is None:
        raise Missing(f"there is no {kind.name} `{key}` in space {space.name}")
    others = set(declared.model.spaces or space.project.spaces) - {space.name}
    if others:
        raise Conflict(
            f"{kind.name} `{key}` is also of space {', '.join(sorted(others))}; change its file "
            f"{declared.path}, or limit it to this space there (`spaces: [{space.name}]`)"
        )
    return declared


def _own_spaces(fields: Mapping[str, Any], space: Space) -> None:
    if "spaces" in fields and fields["spaces"] != [space.name]:
        raise Conflict(f"spaces: expected [{space.name}], the space of this token")


@contextmanager
def _one_at_a_time(root: Path) -> Iterator[Path]:
    folder = data_folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "definitions.lock", timeout=30):
        yield root


def _try(
    root: Path, path: Path, text: str | None, *, reused: tuple[Space, Kind, str] | None = None
) -> None:
    """Whether all declarations hold with this file; DefinitionError or Conflict when not."""
    with tempfile.TemporaryDirectory(prefix="personas-definitions-") as folder:
        for name in _DECLARED:
            if (root / name).is_dir():
                shutil.copytree(root / name, Path(folder) / name)
        copy = Path(folder) / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            copy.unlink()
        else:
            copy.write_text(text, encoding="utf-8")
        project, problems = read_project(Path(folder))
        problems += destination_problems(project)
    if problems:
        raise DefinitionError(problems)
    if reused is not None:
        space, kind, key = reused
        model = getattr(project, kind.folder)[key].model
        _check_registry(space, kind, definition_of(model).query.strip(), model.collection, key)


def _check_registry(space: Space, kind: Kind, query: str, collection: str, key: str) -> None:
    """A key is never used again for anything else, also after its definition is gone."""
    found = space.state.rows(sa.select(registry).where(registry.c.key == key))
    if not found:
        return
    row = found[0]
    same = row["definition"] == {"query": query, "collection": collection}
    if row["kind"] != kind.name or (row["deleted_at"] and not same):
        until = f" until {row['deleted_at']:%Y-%m-%d}" if row["deleted_at"] else ""
        raise Conflict(
            f"key `{key}` was used by the {row['kind']} "
            f"«{' '.join(str(row['definition']['query']).split())}» "
            f"from {row['created_at']:%Y-%m-%d}{until}, and a key is never used again; "
            "choose another key, or put the same definition back"
        )
