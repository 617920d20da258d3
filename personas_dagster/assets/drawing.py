"""Small pictures for what a refresh says of hundreds of assets at once.

What belongs here: SVG written out by hand, of a kilobyte each. A picture by matplotlib takes a
tenth of a second, which is too much for every trait and audience each hour.
"""

import base64
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

import dagster as dg

_COLOR = "#4f46e5"
_TEXT = 'font-family="sans-serif" font-size="11" fill="#334155"'
_LABEL, _WIDTH, _ROW = 150, 520, 17


def distribution(rows: Sequence[Mapping[str, Any]], *, title: str) -> dg.MetadataValue[Any]:
    """Bars of `{step, profiles}`, as many as there are, in their order."""
    if not rows:
        return dg.MetadataValue.md("nothing to draw")
    most = max(row["profiles"] for row in rows)
    parts = []
    for number, row in enumerate(rows):
        top = number * _ROW
        long = max(1, round((_WIDTH - _LABEL - 80) * row["profiles"] / most))
        label = escape(str(row["step"])[:22])
        parts.append(
            f'<text x="{_LABEL - 6}" y="{top + 13}" text-anchor="end" {_TEXT}>{label}</text>'
            f'<rect x="{_LABEL}" y="{top + 3}" width="{long}" height="{_ROW - 5}" fill="{_COLOR}"/>'
            f'<text x="{_LABEL + long + 6}" y="{top + 13}" {_TEXT}>{row["profiles"]:,}</text>'
        )
    return _picture("".join(parts), height=len(rows) * _ROW + 4, title=title)


def over_time(points: Mapping[dt.datetime, int], *, title: str) -> dg.MetadataValue[Any]:
    """A line through sizes by instant, from nothing up to the largest."""
    if not points:
        return dg.MetadataValue.md("nothing to draw")
    high, bottom = 60, 70
    most, first = max(*points.values(), 1), min(points)
    span = (max(points) - first) / dt.timedelta(seconds=1) or 1
    places = [
        (
            round(10 + (_WIDTH - 80) * ((at - first) / dt.timedelta(seconds=1)) / span, 1),
            round(bottom - high * size / most, 1),
        )
        for at, size in sorted(points.items())
    ]
    line = " ".join(f"{x},{y}" for x, y in places)
    x, y = places[-1]
    ends = f"{first:%Y-%m-%d %H:%M} to {max(points):%Y-%m-%d %H:%M} UTC"
    return _picture(
        f'<line x1="10" y1="{bottom}" x2="{_WIDTH - 70}" y2="{bottom}" stroke="#cbd5e1"/>'
        f'<polyline points="{line}" fill="none" stroke="{_COLOR}" stroke-width="2"/>'
        f'<circle cx="{x}" cy="{y}" r="3" fill="{_COLOR}"/>'
        f'<text x="{x + 8}" y="{y + 4}" {_TEXT}>{points[max(points)]:,}</text>'
        f'<text x="10" y="{bottom + 14}" {_TEXT}>{ends}</text>',
        height=bottom + 20,
        title=title,
    )


def _picture(body: str, *, height: int, title: str) -> dg.MetadataValue[Any]:
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}">'
        f'<rect width="100%" height="100%" fill="white"/>{body}</svg>'
    )
    encoded = base64.b64encode(svg.encode()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/svg+xml;base64,{encoded})")
