"""Writes `service.json`, the Grafana dashboard of one service, from `panels.py`: `python -m dashboards.build`.

Rules:
1. Pure but for `main`: the same panels give the same text.
2. Field names are those of Grafana 11 (schemaVersion 39).
3. Panels flow from left to right, row by row; a panel's id is its place in that order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from dashboards.panels import ROWS, SERVICE, Panel, Row

Object = dict[str, Any]

TARGET = Path(__file__).with_name("service.json")
PAGE_WIDTH = 24
SCHEMA_VERSION = 39
DATASOURCE: Object = {"type": "prometheus", "uid": "${datasource}"}
KNOWN = "roleratio_controller_last_tick_timestamp_seconds"
"""A series that every service has, whatever the controller knows of it."""

_COLOURS = {"prefill": "blue", "decode": "orange"}
_DASHED = "/^(SLO|budget|band|limit)/"


def dashboard(rows: tuple[Row, ...] = ROWS) -> Object:
    """The whole dashboard."""
    return {
        "annotations": {"list": [_built_in(), _steps()]},
        "description": "One service of roleratio: what users see, what was decided and why, what stands in the way.",
        "editable": True,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "id": None,
        "links": [],
        "panels": list(_panels(rows)),
        "refresh": "10s",
        "schemaVersion": SCHEMA_VERSION,
        "tags": ["roleratio", "llm"],
        "templating": {"list": [_datasource(), *_service()]},
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "title": "roleratio: service",
        "uid": "roleratio-service",
        "version": 1,
        "weekStart": "",
    }


def text() -> str:
    """The file's text."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def _panels(rows: tuple[Row, ...]) -> Iterator[Object]:
    number, y = 0, 0
    for row in rows:
        number += 1
        place = {"h": 1, "w": PAGE_WIDTH, "x": 0, "y": y}
        yield {"collapsed": False, "gridPos": place, "id": number, "panels": [], "title": row.title, "type": "row"}
        x, y = 0, y + 1
        for panel in row.panels:
            if x + panel.width > PAGE_WIDTH:
                x, y = 0, y + row.height
            number += 1
            yield _panel(panel, number, {"h": row.height, "w": panel.width, "x": x, "y": y})
            x += panel.width
        y += row.height


def _panel(panel: Panel, number: int, place: Object) -> Object:
    return {
        "datasource": DATASOURCE,
        "description": panel.text,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "gridPos": place,
        "id": number,
        "options": _OPTIONS[panel.kind](panel),
        "targets": [
            {
                "datasource": DATASOURCE,
                "editorMode": "code",
                "expr": query.expr,
                "instant": False,
                "legendFormat": query.legend,
                "range": True,
                "refId": letter,
            }
            for letter, query in zip(ascii_uppercase, panel.queries, strict=False)
        ],
        "title": panel.title,
        "type": panel.kind,
    }


def _defaults(panel: Panel) -> Object:
    values = {str(value): {"index": value, "text": text} for value, text in enumerate(panel.values) if text}
    found: Object = {
        "color": {"mode": "palette-classic"},
        "custom": _CUSTOM[panel.kind](panel),
        "mappings": [{"options": values, "type": "value"}] if values else [],
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": [{"color": "green", "value": None}]},
        "unit": panel.unit,
    }
    return found if panel.maximum is None else found | {"max": panel.maximum}


def _overrides(panel: Panel) -> list[Object]:
    """Roles have one colour each; limits are dashed, and never stacked on what they limit."""
    if panel.kind != "timeseries" or panel.draw == "bars":
        return []
    whole = [
        _override({"id": "byName", "options": role}, ("color", {"fixedColor": colour, "mode": "fixed"}))
        for role, colour in _COLOURS.items()
    ]
    limits = _override(
        {"id": "byRegexp", "options": _DASHED},
        ("color", {"fixedColor": "red", "mode": "fixed"}),
        ("custom.lineStyle", {"dash": [8, 8], "fill": "dash"}),
        ("custom.fillOpacity", 0),
        ("custom.stacking", {"group": "limit", "mode": "none"}),
    )
    return [*whole, limits]


def _override(matcher: Object, *properties: tuple[str, Any]) -> Object:
    return {"matcher": matcher, "properties": [{"id": name, "value": value} for name, value in properties]}


def _drawing(panel: Panel) -> Object:
    bars, stacked = panel.draw == "bars", panel.draw != "lines"
    return {
        "axisPlacement": "auto",
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": {"lines": 0, "stacked": 40, "bars": 80}[panel.draw],
        "lineInterpolation": "stepAfter" if panel.unit == "short" else "linear",
        "lineWidth": 1,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
    }


def _legend() -> Object:
    return {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True}


def _stat_options(panel: Panel) -> Object:
    return {
        "colorMode": "none",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "name" if panel.names_only else "auto",
        "wideLayout": True,
    }


def _state_options(_: Panel) -> Object:
    return {
        "alignValue": "left",
        "legend": _legend() | {"showLegend": False},
        "mergeValues": True,
        "rowHeight": 0.9,
        "showValue": "auto",
        "tooltip": {"mode": "single", "sort": "none"},
    }


_OPTIONS: dict[str, Callable[[Panel], Object]] = {
    "timeseries": lambda _: {"legend": _legend(), "tooltip": {"mode": "multi", "sort": "desc"}},
    "stat": _stat_options,
    "state-timeline": _state_options,
}
_CUSTOM: dict[str, Callable[[Panel], Object]] = {
    "timeseries": _drawing,
    "stat": lambda _: {},
    "state-timeline": lambda _: {"fillOpacity": 70, "lineWidth": 0, "spanNulls": False},
}


def _built_in() -> Object:
    return {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }


def _steps() -> Object:
    """A mark in every panel where replicas changed."""
    steps = f'roleratio_controller_steps_total{{{SERVICE},kind="replicas"}}'
    return {
        "datasource": DATASOURCE,
        "enable": True,
        "expr": f"sum by (role, direction) (increase({steps}[1m])) > 0",
        "iconColor": "purple",
        "name": "Scaled",
        "step": "60s",
        "tagKeys": "role,direction",
        "titleFormat": "{{role}} {{direction}}",
    }


def _datasource() -> Object:
    return {
        "current": {},
        "hide": 0,
        "includeAll": False,
        "label": "Prometheus",
        "multi": False,
        "name": "datasource",
        "options": [],
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
        "type": "datasource",
    }


def _service() -> Iterator[Object]:
    """The namespace, then the services in it."""
    yield _variable("target_namespace", "Namespace", f"label_values({KNOWN}, target_namespace)")
    inside = f'{KNOWN}{{target_namespace="$target_namespace"}}'
    yield _variable("target_service", "Service", f"label_values({inside}, target_service)")


def _variable(name: str, label: str, query: str) -> Object:
    return {
        "current": {},
        "datasource": DATASOURCE,
        "definition": query,
        "hide": 0,
        "includeAll": False,
        "label": label,
        "multi": False,
        "name": name,
        "options": [],
        "query": {"qryType": 1, "query": query, "refId": f"{name}-values"},
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 1,
        "type": "query",
    }


def main() -> None:
    """Write the file."""
    TARGET.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
