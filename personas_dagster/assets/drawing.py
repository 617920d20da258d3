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
_MOST_BARS, _MOST_ROWS, _NAMED = 60, 12, 5


def distribution(rows: Sequence[Mapping[str, Any]], *, title: str) -> dg.MetadataValue[Any]:
    """Bars of `{step, profiles}`, as many as there are, in their order."""
    return _rows([(str(row["step"]), row["profiles"]) for row in rows], title)


def bars(values: Mapping[str, float], *, title: str) -> dg.MetadataValue[Any]:
    """A bar for each value, in their order. Only the last 60 where there are more."""
    shown = list(values.items())[-_MOST_BARS:]
    return _rows(shown, title) if len(shown) <= _MOST_ROWS else _columns(shown, title)


def _rows(values: Sequence[tuple[str, float]], title: str) -> dg.MetadataValue[Any]:
    """Bars from left to right, one below the other."""
    if not values:
        return dg.MetadataValue.md("nothing to draw")
    most = max(*(value for _, value in values), 1)
    parts = []
    for number, (name, value) in enumerate(values):
        top = number * _ROW
        long = max(1, round((_WIDTH - _LABEL - 80) * value / most))
        parts.append(
            f'<text x="{_LABEL - 6}" y="{top + 13}" text-anchor="end" {_TEXT}>'
            f"{escape(name[:22])}</text>"
            f'<rect x="{_LABEL}" y="{top + 3}" width="{long}" height="{_ROW - 5}" fill="{_COLOR}"/>'
            f'<text x="{_LABEL + long + 6}" y="{top + 13}" {_TEXT}>{value:,}</text>'
        )
    return _picture("".join(parts), height=len(values) * _ROW + 4, title=title)


def _columns(values: Sequence[tuple[str, float]], title: str) -> dg.MetadataValue[Any]:
    """Bars from below, side by side; the names of some, and the largest value."""
    most, high, left = max(*(value for _, value in values), 1), 120, 60
    wide = (_WIDTH - left) / len(values)
    named = range(0, len(values), -(-len(values) // _NAMED))
    parts = [f'<text x="{left - 6}" y="16" text-anchor="end" {_TEXT}>{most:,}</text>']
    for number, (name, value) in enumerate(values):
        x, long = left + number * wide, max(1, round(high * value / most))
        parts.append(
            f'<rect x="{x:.1f}" y="{high + 6 - long}" width="{wide * 0.8:.1f}" height="{long}" '
            f'fill="{_COLOR}"/>'
        )
        if number in named:
            parts.append(f'<text x="{x:.1f}" y="{high + 20}" {_TEXT}>{escape(name[:12])}</text>')
    return _picture("".join(parts), height=high + 26, title=title)


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
