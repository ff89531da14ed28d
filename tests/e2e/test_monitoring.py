"""A real Prometheus reads a running `raysys up` after the demo: metrics, their number, dashboards, rules."""

from __future__ import annotations

import http.client
import json
import math
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from raysys import db, families
from raysys.errors import Unavailable
from raysys.laptop.processes import wait_until
from raysys.metrics import METRICS
from raysys.monitoring.dashboards import dashboards
from raysys.sources import series_name
from raysys.store import observations
from tests.e2e.conftest import Home, free_ports

PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.early,
    pytest.mark.skipif(
        PROMETHEUS is None, reason="Prometheus is not installed (Debian: prometheus)"
    ),
]

REQUESTS = 10_000
BODIES = 1_000
FORECASTS = 60
LOGGED = 40  # of these at least: a replica logs fifty a second
HOURS = 1_000  # stored lately, among which some are missing
OURS = '{__name__=~"ray_raysys_.+"}'


class Prometheus:
    """A Prometheus of our own, asked over HTTP."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=20)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def ready(self) -> bool:
        """Return whether it answers."""
        try:
            return self._client.get("/-/ready").is_success
        except httpx.HTTPError:
            return False

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer."""
        answer = self._client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def ask(self, formula: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of each series that a formula gives now."""
        result = self.get("query", query=formula)["result"]
        return [(each["metric"], float(each["value"][1])) for each in result]

    def number(self, formula: str) -> float:
        """Return the one number that a formula gives now, or 0."""
        found = self.ask(formula)
        return found[0][1] if found else 0.0


@pytest.fixture(scope="module")
def prometheus(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Start Prometheus with the config that `up` wrote, and wait until it has read every target."""
    folder = tmp_path_factory.mktemp("prometheus")
    (port,) = free_ports(1)
    command = [
        str(PROMETHEUS),
        f"--config.file={home.path / 'monitoring' / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    asked = Prometheus(f"http://127.0.0.1:{port}")
    try:
        wait_until(
            lambda: asked.ready() and asked.number("count(up == 1)") >= 4,
            "Prometheus",
            timeout_seconds=60,
            process=process,
            log=folder / "log",
        )
        yield asked
    finally:
        asked.close()
        process.terminate()
        process.wait(20)


def people() -> Iterator[bytes]:
    """Return different requests for insurance, again and again the same thousand."""
    draw = random.Random(1)
    bodies = [
        json.dumps(
            {
                "age": draw.randint(18, 64),
                "sex": draw.choice(["male", "female"]),
                "bmi": round(18 + place / 40, 3),
                "children": draw.randint(0, 5),
                "smoker": draw.choice(["yes", "no"]),
                "region": "northwest",
            }
        ).encode()
        for place in range(BODIES)
    ]
    for number in range(REQUESTS):
        yield bodies[number % BODIES]


def send(home: Home, route: str, bodies: Iterator[bytes]) -> None:
    """Send requests one after the other on one connection; each has to be answered."""
    port = home.settings().http_port
    headers = {"content-type": "application/json"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        for body in bodies:
            connection.request("PUT", f"/predict/{route}", body, headers)
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status == 200, said


@pytest.fixture(scope="module")
def judged(home: Home, prometheus: Prometheus) -> Home:
    """Ask for forecasts of hours whose truth is stored, and let the quality of all families be judged."""
    with home.client() as client:
        for at, hours in past_hours(home):
            answer = client.put("/predict/atmos_temperature", params={"at": at}, json=hours)
            assert answer.status_code == 200, answer.text
    schedules = [each for each in home.json("schedules", "list") if each["workflow"] == "quality"]
    assert {each["args"][0] for each in schedules} >= set(families.names())
    stored = 'sum(ray_raysys_logged_requests_total{family="atmos", outcome="stored"})'
    until(lambda: prometheus.number(stored) >= LOGGED, "The log of predictions")
    for each in schedules:
        home.run("schedules", "trigger", each["name"])
    until(
        lambda: bool(prometheus.ask('ray_raysys_live_error{family="atmos"}')),
        "The quality of atmos",
    )
    return home


def past_hours(home: Home) -> Iterator[tuple[str, list[float]]]:
    """Return windows of 72 stored hours whose next day is stored too, and the hour that each ends at."""
    settings = home.settings()
    engine = db.open_engine(settings.database)
    frame = observations.read(engine, series_name(settings)).tail(HOURS)
    engine.dispose()
    values = frame["temperature"].interpolate(limit_direction="both").round(1).tolist()
    times = frame["time"].tolist()
    whole = timedelta(hours=95)
    starts = [start for start in range(HOURS - 95) if times[start + 95] - times[start] == whole]
    for start in starts[-FORECASTS:]:
        yield times[start + 71].strftime("%Y-%m-%dT%H:%MZ"), values[start : start + 72]


def until(check: Callable[[], bool], what: str, seconds: float = 90) -> None:
    """Wait until Prometheus has seen something."""
    wait_until(check, what, timeout_seconds=seconds, interval_seconds=1)


def await_none(left: Callable[[], Any], what: str) -> None:
    """Wait until nothing is left of what is wrong; fail with the rest."""
    with suppress(Unavailable):
        until(lambda: not left(), what)
    assert not left()


def positive(value: float) -> bool:
    """Return whether a value is a number above 0."""
    return math.isfinite(value) and value > 0


def share(value: float) -> bool:
    """Return whether a value lies between 0 and 1."""
    return 0 <= value <= 1


def natural(value: float) -> bool:
    """Return whether a value is a whole number, 0 among them."""
    return value >= 0 and value == int(value)


# What the demo touches, and what is sane of it.
SANE: dict[str, Callable[[float], bool]] = {
    'ray_raysys_requests_total{status="200"}': positive,
    'ray_raysys_requests_total{status="500"}': lambda value: value == 0,
    "ray_raysys_request_seconds_count": positive,
    "ray_raysys_request_seconds_sum": lambda value: 0 < value < 60,
    'ray_raysys_request_seconds_bucket{le="+Inf"}': positive,
    "ray_raysys_requests_ongoing": lambda value: 0 <= value < 64,
    "ray_raysys_predictions_total": positive,
    'ray_raysys_logged_requests_total{outcome="stored"}': positive,
    'ray_raysys_logged_requests_total{outcome="dropped"}': lambda value: value == 0,
    "ray_raysys_model_version": lambda value: value >= 1,
    "ray_raysys_model_info": lambda value: value == 1,
    'ray_raysys_model_loads_total{outcome="loaded"}': positive,
    "ray_raysys_model_load_seconds_sum": positive,
    "ray_raysys_model_swaps_total": positive,
    "ray_raysys_refused_versions": lambda value: value == 0,
    "ray_raysys_registry_reachable": lambda value: value == 1,
    "ray_raysys_worker_up": lambda value: value == 1,
    'ray_raysys_runs_total{workflow="train", status="SUCCESSFUL"}': positive,
    'ray_raysys_run_seconds_sum{workflow="crawl"}': positive,
    'ray_raysys_steps_total{step="search", status="SUCCESSFUL"}': positive,
    'ray_raysys_step_seconds_bucket{step="search", le="7200"}': positive,
    'ray_raysys_recent_runs{workflow="train", status="SUCCESSFUL"}': positive,
    'ray_raysys_crawl_rows_total{family="atmos", outcome="new"}': lambda value: value > 10_000,
    'ray_raysys_trials_total{family="insurance"}': lambda value: value >= 2,
    "ray_raysys_best_metric": positive,
    'ray_raysys_promotions{action="promote"}': lambda value: value >= 1,
    'ray_raysys_promotions{action="rollback"}': natural,
    "ray_raysys_model_age_hours": lambda value: 0 <= value < 24,
    "ray_raysys_data_rows": positive,
    'ray_raysys_data_age_hours{family="atmos"}': lambda value: 0 <= value < 48,
    "ray_raysys_data_missing_hours": lambda value: 0 <= value < 720,
    "ray_raysys_data_failed_days": lambda value: value == 0,
    "ray_raysys_disk_free_bytes": positive,
    "ray_raysys_disk_size_bytes": positive,
    'ray_raysys_live_error{family="atmos"}': lambda value: 0 < value < 20,
    'ray_raysys_live_baseline_error{family="atmos"}': lambda value: 0 < value < 20,
    'ray_raysys_test_error{family="atmos"}': lambda value: 0 < value < 20,
    'ray_raysys_truth_coverage{family="atmos"}': share,
    'ray_raysys_truths{family="atmos"}': natural,
    'ray_raysys_drift_score{family="atmos"}': lambda value: value >= 0,
    'ray_raysys_drift_psi{family="atmos"}': lambda value: value >= 0,
    'ray_raysys_prediction_drift_score{family="atmos"}': lambda value: value >= 0,
}


UNTOUCHED = {"refusals", "crawl_errors", "decisions"}  # by a demo in which all is well


def test_no_metric_is_left_out() -> None:
    checked = {formula.partition("{")[0] for formula in SANE}
    for name, metric in METRICS.items():
        assert checked.isdisjoint(metric.exported(name)) == (name in UNTOUCHED), name


def test_every_target_is_read(prometheus: Prometheus) -> None:
    targets = prometheus.get("targets")["activeTargets"]
    assert {(t["labels"]["job"], t["health"]) for t in targets} == {
        ("ray", "up"),
        ("haproxy", "up"),
    }


def test_what_the_demo_touches_is_there_with_a_sane_value(
    judged: Home, prometheus: Prometheus
) -> None:
    def wrong() -> dict[str, list[float]]:
        found = {formula: [v for _, v in prometheus.ask(formula)] for formula in SANE}
        return {
            f: values for f, values in found.items() if not all(map(SANE[f], values or [math.nan]))
        }

    await_none(wrong, "Values of metrics")  # the worker measures every minute


def test_ten_thousand_requests_make_no_new_series(home: Home, prometheus: Prometheus) -> None:
    counted = 'sum(ray_raysys_requests_total{family="insurance"})'
    before = prometheus.number(counted) + 1
    send(home, "insurance", iter([json.dumps(families.get("insurance").example).encode()]))
    until(lambda: prometheus.number(counted) == before, "The first request")
    series = prometheus.number(f"count({OURS})")
    send(home, "insurance", people())
    until(lambda: prometheus.number(counted) >= before + REQUESTS, "The requests")
    assert prometheus.number(counted) == before + REQUESTS
    by_bucket = 'sum(ray_raysys_request_seconds_bucket{family="insurance", le="+Inf"})'
    assert prometheus.number(by_bucket) == before + REQUESTS
    assert (
        prometheus.number(f"count({OURS})") <= series * 1.1 + 40
    )  # a second replica may have come
    assert prometheus.number('count({__name__=~"ray_serve_.+"})') < 3_000


def test_every_panel_shows_something(judged: Home, prometheus: Prometheus) -> None:
    send(judged, "insurance", iter([json.dumps(families.get("insurance").example).encode()] * 50))

    def empty() -> list[str]:
        return [
            f"{panel.title}: {query.formula}"
            for dashboard in dashboards()
            for row in dashboard.rows
            for panel in row.panels
            for query in panel.queries
            if not prometheus.ask(query.formula.replace("$family", "atmos"))
        ]

    await_none(empty, "The panels")


def test_rules_are_evaluated_and_no_alert_fires(prometheus: Prometheus) -> None:
    until(lambda: bool(prometheus.ask("raysys:requests:rate5m")), "The recorded series")
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    assert prometheus.ask('ALERTS{alertstate="firing"}') == []


def test_the_config_is_where_status_says(home: Home) -> None:
    command = home.json("status")["monitoring"]["prometheus"]
    config = next(w for w in command.split() if w.startswith("--config.file="))
    assert Path(config.partition("=")[2]).exists()
