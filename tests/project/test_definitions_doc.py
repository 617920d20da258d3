"""docs/definitions.md says all that the models take, and nothing else."""

import datetime as dt
import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from personas_dagster.project import forms, identity, models
from personas_dagster.project.fields import Model, Secret

DOC = Path(__file__).parents[2] / "docs" / "definitions.md"
MODELS: dict[str, type[BaseModel]] = {
    "Source": models.Source,
    "Identity": identity.Identity,
    "Type": identity.TypeModel,
    "Limit": identity.LimitModel,
    "Computed trait": models.ComputedTrait,
    "Audience": models.Audience,
    "Event counter": forms.EventCounter,
    "Aggregation": forms.Aggregation,
    "Most frequent": forms.MostFrequent,
    "First and last": forms.First,
    "First time": forms.FirstTime,
    "Regularly": forms.Regularly,
    "Stopped": forms.Stopped,
    "Came back": forms.CameBack,
    "Case": models.CaseModel,
    "Expectation": models.ExpectModel,
    "SQL trait": models.SqlTrait,
    "Space": models.Space,
    "Lake": models.LakeModel,
    "Engine": models.EngineModel,
    "State": models.StateModel,
    "Partitions": models.PartitionsModel,
    "Profile API": models.ProfileApiModel,
    "Promotion": models.PromotionModel,
    "Warehouse": models.Warehouse,
    "Destination": models.Destination,
    "Connection": models.Connection,
    "Event names": models.EventNames,
    "Schedules": models.Schedules,
    "Alerts": models.Alerts,
}


def documented(title: str) -> dict[str, str]:
    """Field to default, as the table under a heading has them."""
    section = re.split(rf"^##+ {title}\n", DOC.read_text(), flags=re.MULTILINE)[1]
    section = re.split(r"^##+ ", section, flags=re.MULTILINE)[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, flags=re.MULTILINE))


def default(field: FieldInfo) -> str | None:
    """A default as the table writes it; None where it says it in words."""
    value = field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float | dt.date) or (isinstance(value, str) and value):
        return f"`{value}`"
    return "empty" if value in ("", (), {}) else None


@pytest.mark.parametrize("title", MODELS)
def test_table_of_fields(title: str) -> None:
    fields = {field.alias or name: field for name, field in MODELS[title].model_fields.items()}
    table = documented(title)
    assert set(table) == set(fields)
    for name, field in fields.items():
        by_file = table[name] in ("the file's name", "from the file's name")
        if field.is_required():
            assert by_file or table[name] == "required", name
        elif not by_file and default(field) is not None:
            assert table[name] == default(field), name


def test_every_model_has_a_table() -> None:
    declared = {
        model
        for model in (vars(models) | vars(identity)).values()
        if isinstance(model, type) and issubclass(model, Model)
    }
    known = {Model, Secret, models.Described, models.Computed}
    assert declared - known == {one for one in MODELS.values() if issubclass(one, Model)}
