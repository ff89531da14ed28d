"""Dashboards are what Grafana's schema allows, and ask for metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from raysys import metrics
from raysys.monitoring import dashboards, files, rules
from raysys.monitoring.names import OTHERS
from raysys.monitoring.panels import COLUMNS, Dashboard, render

FOUND = re.compile(r"\b(?:ray_|haproxy_|raysys:)[a-z0-9_:]+|\bup\b")
DASHBOARDS = dashboards.dashboards()


def asked(formula: str) -> set[str]:
    """Return the names of the metrics in a formula of PromQL."""
    return set(FOUND.findall(re.sub(r'"[^"]*"', "", formula)))


def formulas(dashboard: Dashboard) -> Iterator[str]:
    """Return every formula of a dashboard."""
    for row in dashboard.rows:
        for panel in row.panels:
            for query in panel.queries:
                yield query.formula


def every_formula() -> list[str]:
    """Return the formulas of all dashboards and rules."""
    shown = [formula for dashboard in DASHBOARDS for formula in formulas(dashboard)]
    recorded = [recording.formula for recording in rules.recordings(rules.Objectives())]
    return [*shown, *recorded, *(alert.when for alert in rules.alerts())]


def lost(given: Any, known: Any, path: str = "") -> Iterator[str]:
    """Return where `known`, what Grafana's schema made of `given`, lacks or changes something."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key in known:
                yield from lost(value, known[key], f"{path}/{key}")
            else:
                yield f"{path}/{key}"
    elif isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        for place, (one, other) in enumerate(zip(given, known, strict=True)):
            yield from lost(one, other, f"{path}/{place}")
    elif given != known:
        yield f"{path}: {given!r} became {known!r}"


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_a_dashboard_is_valid_by_grafanas_schema(dashboard: Dashboard) -> None:
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard as Schema

    plugins.register_default_plugins()
    given = render(dashboard)
    known = json.loads(JSONEncoder().encode(Schema.from_json(given)))
    assert list(lost(given, known)) == []


def test_the_check_by_the_schema_finds_a_misspelt_key() -> None:
    assert list(lost({"a": [{"titel": 1}]}, {"a": [{"title": ""}]})) == ["/a/0/titel"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_panels_lie_side_by_side(dashboard: Dashboard) -> None:
    taken: set[tuple[int, int]] = set()
    panels = render(dashboard)["panels"]
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= COLUMNS
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_rules_and_dashboards_ask_for_what_there_is() -> None:
    ours = {e for name, each in metrics.METRICS.items() for e in each.exported(name)}
    recorded = {recording.name for recording in rules.recordings(rules.Objectives())}
    wanted = {name for formula in every_formula() for name in asked(formula)}
    assert wanted - ours - recorded - OTHERS.keys() == set()
    assert OTHERS.keys() - wanted == set(), "nothing uses these"


def test_every_metric_of_ours_is_shown_somewhere() -> None:
    shown = {name for formula in every_formula() for name in asked(formula)}
    for name, each in metrics.METRICS.items():
        assert shown & set(each.exported(name)), name


def test_ray_is_scraped_by_the_file_that_it_writes(tmp_path: Any) -> None:
    import yaml

    from raysys.settings import Settings

    settings = Settings(home=tmp_path, haproxy_metrics_port=9911)
    folder = files.write(settings)
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    by_job = {job["job_name"]: job for job in config["scrape_configs"]}
    (found,) = by_job["ray"]["file_sd_configs"][0]["files"]
    assert found.startswith(str(settings.session_folder))
    assert by_job["haproxy"]["static_configs"] == [{"targets": ["127.0.0.1:9911"]}]
    names = sorted(path.name for path in (folder / "grafana" / "dashboards").iterdir())
    assert names == sorted(f"{dashboard.uid}.json" for dashboard in DASHBOARDS)
