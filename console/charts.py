"""Charts by round; each has a name that is read out, and its figures are in a table beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nicegui import ui

Points = Sequence[tuple[float, float | None]]
# Okabe and Ito's colours, which people who see few colours can tell apart on white and on black.
COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")

INK: Final = "#333333"


def line_chart(caption: str, unit: str, series: Mapping[str, Points]) -> None:
    """Lines over the rounds; one without a point is left out, and a chart without a line is not drawn."""
    drawn = {name: points for name, points in series.items() if any(value is not None for _, value in points)}
    if drawn:
        kind = {"type": "line", "showSymbol": True, "symbolSize": 5}
        _draw(
            caption,
            unit,
            [{"name": name, "data": [*map(list, points)], **kind} for name, points in drawn.items()],
        )


def stacked_bars(caption: str, unit: str, series: Mapping[str, Points]) -> None:
    """Bars over the rounds, those of one round on top of each other."""
    if any(value for points in series.values() for _, value in points):
        kind = {"type": "bar", "stack": "all", "barMaxWidth": 24}
        _draw(
            caption,
            unit,
            [{"name": name, "data": [*map(list, points)], **kind} for name, points in series.items()],
        )


def _draw(caption: str, unit: str, series: list[dict[str, Any]]) -> None:
    options = {
        "animation": False,
        "aria": {"enabled": True},
        "backgroundColor": "#ffffff",  # in both schemes: words of a canvas do not follow the page's
        "color": list(COLORS),
        "title": {"text": caption, "textStyle": {"fontSize": 14, "color": INK}},
        "legend": {"top": 28, "textStyle": {"color": INK}},
        "grid": {"top": 84, "left": 56, "right": 24, "bottom": 40},
        "tooltip": {"trigger": "axis"},
        "xAxis": {
            "type": "value",
            "name": "round",
            "nameLocation": "middle",
            "nameGap": 24,
            "minInterval": 1,
            "scale": True,
        },
        "yAxis": {"type": "value", "name": unit, "scale": series[0]["type"] == "line"},
        "series": series,
    }
    label = f'role=img aria-label="{caption}; the table of rounds has the figures"'
    ui.echart(options).classes("w-full h-72").props(label)
