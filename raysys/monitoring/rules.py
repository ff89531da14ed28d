"""The recording and alert rules: what is computed from the metrics, and when somebody must look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from raysys.monitoring.names import name, other

Severity = Literal["critical", "warning"]

EVALUATE_SECONDS = 15
RUNBOOK = "docs/operations.md"


class Objectives(NamedTuple):
    """What is promised of serving, and how old data and models may be."""

    failed_share: float = 0.001  # of the requests, over 30 days
    slow_share: float = 0.01
    slow_seconds: float = 0.1  # in a replica; a bound of the histogram
    data_age_hours: float = 48  # KMA publishes a day at 11 h of the next, and a crawl is every 6 h
    missing_hours: float = 72  # of 30 days
    model_age_days: float = 45
    # Four days of quiet weather were up to 1.9 times as hard as the test rows, and 1.4 times as the baseline's.
    error_factor: float = 2.0  # of the live error to the error on the test rows
    baseline_factor: float = 1.5  # of the live error to the baseline's on the same values
    free_disk_share: float = 0.1
    fill_days: float = 3


class Alert(NamedTuple):
    """One alert: when `when` holds for `minutes`; `section` of docs/operations.md says what to do."""

    name: str
    when: str
    minutes: int
    severity: Severity
    summary: str
    section: str


class Recording(NamedTuple):
    """One recorded series."""

    name: str
    formula: str


class Burn(NamedTuple):
    """How fast a budget may be used up: `factor` times too fast over the window `long`, and still over `short`."""

    word: str
    severity: Severity
    long: str
    short: str
    factor: float
    minutes: int


# Of the budget of 30 days; the numbers are those of the Site Reliability Workbook, chapter 5.
BURNS = (
    Burn("Fast", "critical", "1h", "5m", 14.4, 2),
    Burn("Slowly", "warning", "6h", "30m", 6.0, 15),
)
WINDOWS = ("5m", "30m", "1h", "6h")
LEAST_FAILURES = 10  # a single failed request at night is no incident


def groups(objectives: Objectives = Objectives()) -> dict[str, Any]:  # noqa: B008  it is frozen
    """Return the content of a rules file of Prometheus."""
    return {
        "groups": [
            {
                "name": "raysys-recording",
                "interval": f"{EVALUATE_SECONDS}s",
                "rules": [{"record": r.name, "expr": r.formula} for r in recordings(objectives)],
            },
            {
                "name": "raysys-alerts",
                "interval": f"{EVALUATE_SECONDS}s",
                "rules": [_alert(alert) for alert in alerts(objectives)],
            },
        ]
    }


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.when,
        **({"for": f"{alert.minutes}m"} if alert.minutes else {}),
        "labels": {"severity": alert.severity, "service": "raysys"},
        "annotations": {
            "summary": alert.summary,
            "runbook": f"{RUNBOOK}#{alert.section}",
        },
    }


def recordings(objectives: Objectives) -> list[Recording]:
    """Return every recorded series."""
    bucket, count = name("request_seconds", "bucket"), name("request_seconds", "count")
    answers = other("haproxy_backend_http_responses_total")
    found = [Recording("raysys:requests:rate5m", f"sum by (family) (rate({count}[5m]))")]
    for quantile in (50, 99):
        share = f"histogram_quantile({quantile / 100:g}, sum by (family, le) (rate({bucket}[5m])))"
        found.append(Recording(f"raysys:request_seconds:p{quantile}", share))
    for window in WINDOWS:
        failed = f'sum by (proxy) (rate({answers}{{proxy=~"http-.+", code="5xx"}}[{window}]))'
        every = f'sum by (proxy) (rate({answers}{{proxy=~"http-.+"}}[{window}]))'
        share = _by_family(f"{failed} / {every}")
        found.append(Recording(f"raysys:failed_requests:ratio{window}", share))
        quick = f'sum by (family) (rate({bucket}{{le="{objectives.slow_seconds:g}"}}[{window}]))'
        every = f"sum by (family) (rate({count}[{window}]))"
        found.append(Recording(f"raysys:slow_requests:ratio{window}", f"1 - {quick} / {every}"))
    return found


def _by_family(formula: str) -> str:
    return f'sum by (family) (label_replace({formula}, "family", "$1", "proxy", "http-(.+)"))'


def alerts(objectives: Objectives = Objectives()) -> list[Alert]:  # noqa: B008  it is frozen
    """Return every alert."""
    return [
        *_serving(objectives),
        *_models(objectives),
        *_quality(objectives),
        *_data(objectives),
        *_platform(objectives),
    ]


def _serving(objectives: Objectives) -> Iterator[Alert]:
    for burn in BURNS:
        yield _failing(burn, objectives)
        yield _slow(burn, objectives)
    yield Alert(
        "RaysysApplicationDown",
        f"min by (application) ({other('ray_serve_application_status')}) < 5",
        5,
        "critical",
        "The application {{ $labels.application }} does not run.",
        "a-process-dies",
    )
    dropped = f'{name("logged_requests")}{{outcome="dropped"}}'
    yield Alert(
        "RaysysPredictionLogDrops",
        f"sum by (family) (increase({dropped}[15m])) > 0",
        15,
        "warning",
        "Predictions of {{ $labels.family }} are not logged: the database does not take them.",
        "the-database-does-not-answer",
    )


def _failing(burn: Burn, objectives: Objectives) -> Alert:
    answers = other("haproxy_backend_http_responses_total")
    limit = f"{burn.factor * objectives.failed_share:g}"
    many = f'sum by (proxy) (increase({answers}{{proxy=~"http-.+", code="5xx"}}[{burn.long}]))'
    many = _by_family(many)
    ratio = "raysys:failed_requests:ratio"
    return Alert(
        f"RaysysRequestsFail{burn.word}",
        f"{ratio}{burn.long} > {limit} and {ratio}{burn.short} > {limit}"
        f" and on (family) {many} >= {LEAST_FAILURES}",
        burn.minutes,
        burn.severity,
        "{{ $value | humanizePercentage }} of the requests to {{ $labels.family }} fail.",
        "requests-fail-or-are-slow",
    )


def _slow(burn: Burn, objectives: Objectives) -> Alert:
    limit = f"{burn.factor * objectives.slow_share:g}"
    ratio = "raysys:slow_requests:ratio"
    return Alert(
        f"RaysysRequestsSlow{burn.word}",
        f"{ratio}{burn.long} > {limit} and {ratio}{burn.short} > {limit}",
        burn.minutes,
        burn.severity,
        "{{ $value | humanizePercentage }} of the requests to {{ $labels.family }} take longer than "
        f"{objectives.slow_seconds:g} s in a replica.",
        "requests-fail-or-are-slow",
    )


def _models(objectives: Objectives) -> Iterator[Alert]:
    yield Alert(
        "RaysysModelMissing",
        f"max by (family) ({name('model_version')}) == 0",
        15,
        "warning",
        "No replica of {{ $labels.family }} has a model.",
        "a-version-is-refused-by-the-replicas",
    )
    yield Alert(
        "RaysysModelRefused",
        f"max by (family) ({name('refused_versions')}) > 0",
        5,
        "warning",
        "Replicas of {{ $labels.family }} refuse a version, and go on with the one before.",
        "a-version-is-refused-by-the-replicas",
    )
    yield Alert(
        "RaysysModelStale",
        f"max by (family) ({name('model_age_hours')}) > {objectives.model_age_days * 24:g}",
        60,
        "warning",
        "The champion of {{ $labels.family }} is {{ $value | humanize }} hours old.",
        "a-training-fails-or-its-model-is-worse",
    )
    yield Alert(
        "RaysysRegistryUnreachable",
        f"max by (family) ({name('registry_reachable')}) == 0",
        15,
        "warning",
        "No replica of {{ $labels.family }} hears of new versions.",
        "a-process-dies",
    )


def _quality(objectives: Objectives) -> Iterator[Alert]:
    live, test = name("live_error"), name("test_error")
    served = f"on (family, version) {name('model_info')}"
    by = "max by (family, version)"
    yield Alert(
        "RaysysLiveErrorAboveBaseline",
        f"({by} ({live}) / {by} ({name('live_baseline_error')})) > {objectives.baseline_factor:g} and {served}",
        120,
        "critical",
        "{{ $labels.family }} {{ $labels.version }} is worse than its baseline: its live error is "
        "{{ $value | humanize }} times that.",
        "live-quality-falls",
    )
    yield Alert(
        "RaysysLiveErrorHigh",
        f"({by} ({live}) / {by} ({test})) > {objectives.error_factor:g} and {served}",
        120,
        "warning",
        "The live error of {{ $labels.family }} {{ $labels.version }} is {{ $value | humanize }} times that of its "
        "test rows.",
        "live-quality-falls",
    )
    told = f'{name("decisions")}{{action="alert"}}'
    yield Alert(
        "RaysysPolicyAlert",
        f"sum by (family) (increase({told}[3h])) > 0",
        0,
        "warning",
        "The policy of {{ $labels.family }} tells of its model: `raysys models history` says why.",
        "live-quality-falls",
    )
    yield Alert(
        "RaysysInputDrift",
        f"max by (family, feature) ({name('drift_score')}) > 1",
        120,
        "warning",
        "{{ $labels.feature }} of {{ $labels.family }} has drifted: {{ $value | humanize }} times its threshold.",
        "inputs-drift",
    )
    yield Alert(
        "RaysysPredictionDrift",
        f"max by (family) ({name('prediction_drift_score')}) > 1",
        120,
        "warning",
        "The predictions of {{ $labels.family }} have drifted: {{ $value | humanize }} times the threshold.",
        "inputs-drift",
    )


def _data(objectives: Objectives) -> Iterator[Alert]:
    missing = name("data_missing_hours")
    age = f"max by (family) ({name('data_age_hours')})"
    yield Alert(
        "RaysysDataStale",
        # Missing hours are known of series only: the rows of a table come when somebody brings them.
        f"{age} > {objectives.data_age_hours:g} and on (family) {missing}",
        60,
        "warning",
        "The newest hour of {{ $labels.family }} is {{ $value | humanize }} hours old.",
        "a-source-fails",
    )
    yield Alert(
        "RaysysDataMissing",
        f"max by (family) ({missing}) > {objectives.missing_hours:g}",
        60,
        "warning",
        "{{ $value }} of the last 720 hours of {{ $labels.family }} are missing.",
        "a-source-fails",
    )
    for workflow, section in (
        ("crawl", "a-source-fails"),
        ("train", "a-training-fails-or-its-model-is-worse"),
    ):
        runs = f'sum({name("recent_runs")}{{workflow="{workflow}", status="%s"}})'
        good = f"({runs % 'SUCCESSFUL'} or vector(0))"
        yield Alert(
            f"Raysys{workflow.title()}Failing",
            f"{runs % 'FAILED'} > 1 and {runs % 'FAILED'} > {good}",
            15,
            "warning",
            "{{ $value }} runs of " + workflow + " failed within a day, more than succeeded.",
            section,
        )


def _platform(objectives: Objectives) -> Iterator[Alert]:
    yield Alert(
        "RaysysWorkerAbsent",
        f"absent({name('worker_up')} == 1)",
        5,
        "critical",
        "No worker runs workflows: nothing is crawled, trained or judged.",
        "a-process-dies",
    )
    yield Alert(
        "RaysysTargetDown",
        f'min by (job, instance) ({other("up")}{{job=~"ray|haproxy|.*raysys.*"}}) == 0',
        5,
        "critical",
        "{{ $labels.instance }} of {{ $labels.job }} gives no metrics.",
        "a-process-dies",
    )
    free, size = name("disk_free_bytes"), name("disk_size_bytes")
    seconds = objectives.fill_days * 86400
    yield Alert(
        "RaysysDiskFilling",
        f"min({free} / {size}) < {objectives.free_disk_share:g}"
        # A trend of a few minutes, such as that of a training, says nothing.
        f" or min(predict_linear({free}[6h], {seconds:g})) < 0 and min({free} offset 3h)",
        30,
        "warning",
        "The disk of the home is full, or will be within days.",
        "the-disk-fills",
    )
    yield Alert(
        "RaysysNodeDiskFull",
        f"max by (instance) ({other('ray_node_disk_utilization_percentage')}) > 90",
        15,
        "critical",
        "The disk of {{ $labels.instance }} is {{ $value | humanize }} % full; Ray stops at 95 %.",
        "the-disk-fills",
    )
