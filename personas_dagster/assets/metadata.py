"""How results are shown in Dagster's UI: tables, samples and plots as metadata."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from personas_dagster.identity.rebuilding import Rebuilt

_MOST_LINES = 12
_FEW_POINTS = 40


def table(rows: Sequence[Mapping[str, Any]]) -> dg.MetadataValue[Any]:
    """Rows as a table; every cell as the UI can show it."""
    shown = [
        {k: v if isinstance(v, str | int | float | bool) else str(v) for k, v in row.items()}
        for row in rows
    ]
    if not shown:
        return dg.MetadataValue.md("none")
    schema = dg.TableSchema(
        columns=[dg.TableColumn(name, _kind(value)) for name, value in shown[0].items()]
    )
    return dg.MetadataValue.table([dg.TableRecord(row) for row in shown], schema=schema)


def _kind(value: object) -> str:
    names = {bool: "bool", int: "int", float: "float"}
    return names.get(type(value), "string")


def rebuilt(done: Rebuilt | None) -> dict[str, Any]:
    """What a rebuild of the identity graph left; nothing when there was none."""
    if done is None:
        return {}
    return {
        "rebuilt_because": done.why,
        "loads_replayed": done.loads,
        "messages_replayed": done.messages,
        **{f"{name}_after_rebuild": rows for name, rows in done.rows.items()},
        "digests_after_rebuild": dg.MetadataValue.json(dict(done.digests)),
    }


def lines(values: Mapping[str, Mapping[Any, float]], *, title: str) -> dg.MetadataValue[Any]:
    """A line for each name over the same days, as a picture in Markdown; the largest twelve."""
    if not values:
        return dg.MetadataValue.md("nothing to draw")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    largest = sorted(values, key=lambda name: (-max(values[name].values(), default=0), name))
    figure = Figure(figsize=(9, 3.4), dpi=80)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name in sorted(largest[:_MOST_LINES]):
        by_day = values[name]
        style = "o-" if len(by_day) < _FEW_POINTS else "-"
        axes.plot(list(by_day), list(by_day.values()), style, label=name, markersize=3)
    axes.legend(fontsize=7, frameon=False)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=7)
    axes.set_title(title, fontsize=9, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.autofmt_xdate()
    return _picture(figure, title)


def _picture(figure: Any, title: str) -> dg.MetadataValue[Any]:
    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    encoded = base64.b64encode(picture.getvalue()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{encoded})")


def size(count: int) -> dg.MetadataValue[Any]:
    """Bytes, for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return dg.MetadataValue.text(f"{amount:.1f} {unit}")
        amount /= 1024
    return dg.MetadataValue.text(f"{amount:.1f} TiB")
