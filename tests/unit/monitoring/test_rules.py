"""Each alert fires where it should and stays silent where all is well, as Prometheus' own promtool finds."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from raysys.monitoring import files, rules

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)"
)

R = "ray_raysys_"
HA = "haproxy_backend_http_responses_total"
FAMILY = '{family="atmos"}'
V2 = '{family="atmos", version="2"}'

Series = dict[str, str]

# Ten hours in which all is well, minute by minute; each case below changes some of it.
WELL: Series = {
    f'{HA}{{proxy="http-atmos", code="2xx"}}': "0+600x600",
    f'{HA}{{proxy="http-atmos", code="5xx"}}': "0x600",
    f'{R}request_seconds_bucket{{family="atmos", le="0.1"}}': "0+599x600",
    f'{R}request_seconds_bucket{{family="atmos", le="+Inf"}}': "0+600x600",
    f"{R}request_seconds_count{FAMILY}": "0+600x600",
    'ray_serve_application_status{application="atmos"}': "6x600",
    f'{R}logged_requests_total{{family="atmos", outcome="dropped"}}': "0x600",
    f"{R}model_version{FAMILY}": "2x600",
    f"{R}refused_versions{FAMILY}": "0x600",
    f"{R}model_age_hours{FAMILY}": "10x600",
    f"{R}registry_reachable{FAMILY}": "1x600",
    f'{R}model_info{{family="atmos", version="2", sha256="ab"}}': "1x600",
    f"{R}live_error{V2}": "1.5x600",
    f"{R}live_baseline_error{V2}": "2.2x600",
    f"{R}test_error{V2}": "1.4x600",
    f'{R}drift_score{{family="atmos", feature="temperature"}}': "0.6x600",
    f"{R}prediction_drift_score{FAMILY}": "0.4x600",
    f"{R}data_age_hours{FAMILY}": "30x600",
    f"{R}data_missing_hours{FAMILY}": "20x600",
    f'{R}data_age_hours{{family="insurance"}}': "9000x600",
    f'{R}recent_runs{{workflow="crawl", status="SUCCESSFUL"}}': "4x600",
    f'{R}recent_runs{{workflow="train", status="SUCCESSFUL"}}': "1x600",
    f'{R}recent_runs{{workflow="crawl", status="FAILED"}}': "1x600",
    f"{R}worker_up": "1x600",
    'up{job="ray", instance="127.0.0.1:8080"}': "1x600",
    f"{R}disk_free_bytes": "50e9x600",
    f"{R}disk_size_bytes": "200e9x600",
    'ray_node_disk_utilization_percentage{instance="127.0.0.1:8080"}': "60x600",
}

ERRORS = f'{HA}{{proxy="http-atmos", code="5xx"}}'
QUICK = f'{R}request_seconds_bucket{{family="atmos", le="0.1"}}'

# What is changed, and the labels of the alert that must then fire.
ILL: dict[str, tuple[Series, dict[str, str]]] = {
    "RaysysRequestsFailFast": ({ERRORS: "0x539 0+12x60"}, {"family": "atmos"}),
    "RaysysRequestsFailSlowly": ({ERRORS: "0x200 0+5x400"}, {"family": "atmos"}),
    "RaysysRequestsSlowFast": ({QUICK: "0+599x400 239600+400x200"}, {"family": "atmos"}),
    "RaysysRequestsSlowSlowly": ({QUICK: "0+540x600"}, {"family": "atmos"}),
    "RaysysApplicationDown": (
        {'ray_serve_application_status{application="atmos"}': "6x580 2x20"},
        {"application": "atmos"},
    ),
    "RaysysPredictionLogDrops": (
        {f'{R}logged_requests_total{{family="atmos", outcome="dropped"}}': "0x500 0+3x100"},
        {"family": "atmos"},
    ),
    "RaysysModelMissing": ({f"{R}model_version{FAMILY}": "0x600"}, {"family": "atmos"}),
    "RaysysModelRefused": ({f"{R}refused_versions{FAMILY}": "0x580 1x20"}, {"family": "atmos"}),
    "RaysysModelStale": ({f"{R}model_age_hours{FAMILY}": "1100x600"}, {"family": "atmos"}),
    "RaysysRegistryUnreachable": (
        {f"{R}registry_reachable{FAMILY}": "1x500 0x100"},
        {"family": "atmos"},
    ),
    "RaysysLiveErrorAboveBaseline": (
        {f"{R}live_error{V2}": "3.6x600", f"{R}test_error{V2}": "2.0x600"},
        {"family": "atmos", "version": "2"},
    ),
    "RaysysLiveErrorHigh": (
        {f"{R}live_error{V2}": "3.0x600"},
        {"family": "atmos", "version": "2"},
    ),
    "RaysysPolicyAlert": (
        {f'{R}decisions_total{{family="atmos", action="alert"}}': "0x500 1x100"},
        {"family": "atmos"},
    ),
    "RaysysInputDrift": (
        {f'{R}drift_score{{family="atmos", feature="temperature"}}': "0.6x300 1.2x300"},
        {"family": "atmos", "feature": "temperature"},
    ),
    "RaysysPredictionDrift": (
        {f"{R}prediction_drift_score{FAMILY}": "0.6x300 1.2x300"},
        {"family": "atmos"},
    ),
    "RaysysDataStale": ({f"{R}data_age_hours{FAMILY}": "50x600"}, {"family": "atmos"}),
    "RaysysDataMissing": ({f"{R}data_missing_hours{FAMILY}": "80x600"}, {"family": "atmos"}),
    "RaysysCrawlFailing": (
        {
            f'{R}recent_runs{{workflow="crawl", status="SUCCESSFUL"}}': "4x100 1x500",
            f'{R}recent_runs{{workflow="crawl", status="FAILED"}}': "0x100 2x500",
        },
        {},
    ),
    "RaysysTrainFailing": (
        {
            f'{R}recent_runs{{workflow="train", status="SUCCESSFUL"}}': "1x100",
            f'{R}recent_runs{{workflow="train", status="FAILED"}}': "0x100 2x500",
        },
        {},
    ),
    "RaysysWorkerAbsent": ({f"{R}worker_up": "1x500"}, {}),
    "RaysysTargetDown": (
        {'up{job="ray", instance="127.0.0.1:8080"}': "1x500 0x100"},
        {"job": "ray", "instance": "127.0.0.1:8080"},
    ),
    "RaysysDiskFilling": ({f"{R}disk_free_bytes": "50e9-20e6x600"}, {}),
    "RaysysNodeDiskFull": (
        {'ray_node_disk_utilization_percentage{instance="127.0.0.1:8080"}': "93x600"},
        {"instance": "127.0.0.1:8080"},
    ),
}

# Changes that look bad and are none.
HARMLESS: dict[str, tuple[str, Series]] = {
    "three failed requests in a quiet hour": (
        "RaysysRequestsFailFast",
        {
            f'{HA}{{proxy="http-atmos", code="2xx"}}': "0+1x600",
            ERRORS: "0x590 0+1x3 3x7",
        },
    ),
    "a burst of failures an hour ago": (
        "RaysysRequestsFailFast",
        {ERRORS: "0x540 0+50x20 1000x40"},
    ),
    "an application that is updated": (
        "RaysysApplicationDown",
        {'ray_serve_application_status{application="atmos"}': "6x580 5x20"},
    ),
    "an old version that was bad": (
        "RaysysLiveErrorAboveBaseline",
        {f'{R}live_error{{family="atmos", version="1"}}': "9x600"},
    ),
    "four days of hard weather": ("RaysysLiveErrorHigh", {f"{R}live_error{V2}": "2.6x600"}),
    "four days that are hard for the model alone": (
        "RaysysLiveErrorAboveBaseline",
        {f"{R}live_error{V2}": "2.7x600"},
    ),
    "a training that the policy starts": (
        "RaysysPolicyAlert",
        {f'{R}decisions_total{{family="atmos", action="retrain"}}': "0x500 1x100"},
    ),
    "a table whose rows are old": ("RaysysDataStale", {}),
    "a worker that restarts": ("RaysysWorkerAbsent", {f"{R}worker_up": "1x590 0x3 1x7"}),
    "a disk that fills within a year": (
        "RaysysDiskFilling",
        {f"{R}disk_free_bytes": "50e9-100e3x600"},
    ),
    "a training that fills the disk for an hour": (
        "RaysysDiskFilling",
        {f"{R}disk_free_bytes": "_x540 50e9-100e6x60"},
    ),
    "one crawl that failed among four": ("RaysysCrawlFailing", {}),
}


class Case(NamedTuple):
    """What is changed in ten hours in which all was well, and what of an alert is then expected."""

    series: Series
    alert: str
    expected: list[dict[str, Any]]


def checks(cases: Iterable[Case]) -> list[dict[str, Any]]:
    """Return tests of promtool, few as each takes long: cases that change different series share one."""
    shared: list[list[Case]] = []
    for case in cases:
        for group in shared:
            if not any(case.series.keys() & each.series.keys() for each in group):
                group.append(case)
                break
        else:
            shared.append([case])
    return [_check(group) for group in shared]


def _check(cases: list[Case]) -> dict[str, Any]:
    series = dict(WELL)
    for case in cases:
        series |= case.series
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": "600m", "alertname": case.alert, "exp_alerts": case.expected}
            for case in cases
        ],
    }


def fired(alert: rules.Alert, labels: dict[str, str]) -> list[dict[str, Any]]:
    """Return what promtool expects of an alert that fires; annotations are not compared here."""
    return [{"exp_labels": {**labels, "severity": alert.severity, "service": "raysys"}}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the rules, without their annotations, whose numbers are of no interest here, and in no hurry."""
    content = rules.groups()
    for group in content["groups"]:
        group.pop("interval")
        for rule in group["rules"]:
            rule.pop("annotations", None)
    (tmp_path / "rules.yml").write_text(files.dump(content))
    return tmp_path


def run_promtool(folder: Path, tests: list[dict[str, Any]]) -> None:
    """Let promtool run `tests` against the rules."""
    content = {"rule_files": ["rules.yml"], "evaluation_interval": "5m", "tests": tests}
    (folder / "tests.yml").write_text(files.dump(content))
    command = [str(PROMTOOL), "test", "rules", "tests.yml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case() -> None:
    assert {alert.name for alert in rules.alerts()} == ILL.keys()
    assert {alert for alert, _ in HARMLESS.values()} <= ILL.keys()


@needs_promtool
def test_each_alert_fires_in_its_case(folder: Path) -> None:
    by_name = {alert.name: alert for alert in rules.alerts()}
    cases = [Case(series, name, fired(by_name[name], of)) for name, (series, of) in ILL.items()]
    run_promtool(folder, checks(cases))


@needs_promtool
def test_each_alert_is_silent_where_all_is_well(folder: Path) -> None:
    run_promtool(folder, checks(Case({}, name, []) for name in ILL))


@needs_promtool
def test_what_only_looks_bad_is_silent(folder: Path) -> None:
    run_promtool(folder, checks(Case(series, name, []) for name, series in HARMLESS.values()))


@needs_promtool
def test_promtool_takes_the_rules_and_the_config(tmp_path: Path) -> None:
    from raysys.settings import Settings

    written = files.write(Settings(home=tmp_path))
    for command in (("rules", "rules.yml"), ("config", "prometheus.yml")):
        done = subprocess.run(
            [str(PROMTOOL), "check", *command],
            cwd=written,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", rules.alerts(), ids=lambda alert: alert.name)
def test_an_alert_says_what_to_do(alert: rules.Alert) -> None:
    operations = (Path(__file__).parents[3] / rules.RUNBOOK).read_text()
    sections = {
        line.removeprefix("## ").lower().replace(" ", "-").replace(",", "")
        for line in operations.splitlines()
        if line.startswith("## ")
    }
    assert alert.section in sections
    assert alert.summary.endswith(".")
