"""The shapes of Grafana: a dashboard of panels, laid out in rows of 24 columns; what they show is not here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from raysys.monitoring.names import name

COLUMNS = 24
HEIGHT = 8
SCHEMA_VERSION = 41  # Grafana 11.6; older ones are brought up to date by newer ones
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Query(NamedTuple):
    """One formula of PromQL and the name of its lines."""

    formula: str
    legend: str = ""


class Panel(NamedTuple):
    """One picture; `width` is in columns of 24."""

    title: str
    queries: Sequence[Query]
    about: str
    unit: str = "short"
    kind: Literal["timeseries", "stat", "heatmap"] = "timeseries"
    width: int = 8


class Row(NamedTuple):
    """A titled row of panels."""

    title: str
    panels: Sequence[Panel]


class Dashboard(NamedTuple):
    """A page: rows of panels, and the label that its reader chooses a value of."""

    uid: str
    title: str
    about: str
    rows: Sequence[Row]
    variables: Sequence[tuple[str, str]] = ()  # name, and the metric whose label it is


def render(dashboard: Dashboard) -> dict[str, Any]:
    """Return the JSON that Grafana imports."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["raysys"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": SCHEMA_VERSION,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "panels": list(_panels(dashboard.rows)),
        "templating": {"list": [_source(), *(_variable(*v) for v in dashboard.variables)]},
        "annotations": {"list": [_swaps()]},
        "links": [_link()],
    }


def _panels(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    number, top = 1, 0
    for row in rows:
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        yield _row(number, row.title, place)
        number, top, left = number + 1, top + 1, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left = top + HEIGHT, 0
            yield _panel(number, panel, {"x": left, "y": top, "w": panel.width, "h": HEIGHT})
            number, left = number + 1, left + panel.width
        top += HEIGHT


def _row(number: int, title: str, place: dict[str, int]) -> dict[str, Any]:
    return {
        "type": "row",
        "id": number,
        "title": title,
        "collapsed": False,
        "gridPos": place,
        "panels": [],
    }


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "id": number,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": [
            _target(chr(ord("A") + place), query, panel.kind)
            for place, query in enumerate(panel.queries)
        ],
        "options": OPTIONS[panel.kind],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
    }


def _target(letter: str, query: Query, kind: str) -> dict[str, Any]:
    return {
        "refId": letter,
        "expr": query.formula,
        "legendFormat": query.legend or "__auto",
        "range": kind != "stat",
        "instant": kind == "stat",
        "format": "heatmap" if kind == "heatmap" else "time_series",
        "datasource": SOURCE,
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    drawn = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": True}
    return {
        "unit": panel.unit,
        **({"min": 0} if panel.kind == "timeseries" else {}),
        **({"custom": drawn} if panel.kind == "timeseries" else {}),
    }


OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {
            "showLegend": True,
            "displayMode": "list",
            "placement": "bottom",
            "calcs": [],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "graphMode": "none",
        "colorMode": "value",
        "justifyMode": "auto",
        "textMode": "value_and_name",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
        "orientation": "auto",
    },
    "heatmap": {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": "Oranges",
            "steps": 32,
            "exponent": 0.5,
            "fill": "dark-orange",
            "reverse": False,
        },
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"},
    },
}


def _source() -> dict[str, Any]:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
    }


def _variable(label: str, metric: str) -> dict[str, Any]:
    return {
        "type": "query",
        "name": label,
        "label": label,
        "datasource": SOURCE,
        "query": f"label_values({metric}, {label})",
        "refresh": 2,
        "sort": 1,
        "multi": False,
        "includeAll": False,
    }


def _swaps() -> dict[str, Any]:
    return {
        "name": "Another version serves",
        "enable": True,
        "iconColor": "blue",
        "datasource": SOURCE,
        "expr": f"changes({name('model_version')}[1m]) > 0",
    }


def _link() -> dict[str, Any]:
    return {
        "title": "raysys",
        "type": "dashboards",
        "tags": ["raysys"],
        "asDropdown": False,
        "icon": "external link",
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "tooltip": "",
    }
