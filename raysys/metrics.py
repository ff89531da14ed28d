"""The metrics of raysys, each declared once, and how its values reach Ray's agent; what is measured is its caller's."""

from __future__ import annotations

import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, Literal, NamedTuple

PREFIX = "raysys_"
RAY_PREFIX = "ray_"  # of every metric that Ray's agent exports
REFRESH_SECONDS = 5.0  # Ray forgets a gauge that was not set within an interval of 10 s
HOUR_SECONDS = 3600.0
KEEP_HOURS = 3.0  # what is measured every hour may fail once or twice

WORK_SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
REQUEST_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
LOAD_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)


class Metric(NamedTuple):
    """A kind, a sentence, the labels that every value has, a histogram's bounds, and how long a level is told."""

    kind: Literal["counter", "gauge", "histogram"]
    about: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    keep_hours: float = KEEP_HOURS

    def exported(self, name: str) -> list[str]:
        """Return the names that Prometheus stores a metric called `name` under."""
        full = RAY_PREFIX + PREFIX + name
        if self.kind == "histogram":
            return [full + part for part in ("_bucket", "_sum", "_count")]
        return [full + "_total" if self.kind == "counter" else full]


# Labels have few values: names that the operator chose, versions that live, codes. Never an id, never what a
# caller sent. Names of one metric are the same in Ray, in the rules and in the dashboards.
METRICS: dict[str, Metric] = {
    # replicas
    "requests": Metric("counter", "Requests answered, by HTTP status.", ("family", "status")),
    "request_seconds": Metric(
        "histogram",
        "Time that a replica took for a request, in seconds.",
        ("family",),
        REQUEST_SECONDS,
    ),
    "requests_ongoing": Metric(
        "gauge", "Requests that a replica has begun and not answered.", ("family",)
    ),
    "predictions": Metric(
        "counter", "Rows predicted, by the version that predicted them.", ("family", "version")
    ),
    "logged_requests": Metric(
        "counter",
        "Requests by what the log of predictions did: stored, skipped (not of the sample), dropped.",
        ("family", "outcome"),
    ),
    "model_version": Metric("gauge", "Version that a replica serves, 0 for none.", ("family",)),
    "model_info": Metric(
        "gauge", "1 for the version that a replica serves.", ("family", "version", "sha256")
    ),
    "model_loads": Metric(
        "counter", "Versions that a replica loaded or refused, by outcome.", ("family", "outcome")
    ),
    "model_load_seconds": Metric(
        "histogram",
        "Time to check, build and warm a version, in seconds.",
        ("family",),
        LOAD_SECONDS,
    ),
    "model_swaps": Metric("counter", "Changes of the version that a replica serves.", ("family",)),
    "refusals": Metric(
        "counter",
        "Versions that a replica refused: hash, load, signature, example, or other.",
        ("family", "reason"),
    ),
    "refused_versions": Metric("gauge", "Versions that a replica refuses now.", ("family",)),
    "registry_reachable": Metric(
        "gauge", "1 while a replica is told about new versions, else 0.", ("family",)
    ),
    # workflows
    "worker_up": Metric("gauge", "1 while the worker lives and runs workflows, else 0."),
    "runs": Metric(
        "counter", "Workflow runs that ended, by outcome.", ("workflow", "family", "status")
    ),
    "run_seconds": Metric(
        "histogram", "Time a run took, in seconds.", ("workflow", "family", "status"), WORK_SECONDS
    ),
    "steps": Metric("counter", "Attempts of steps that ended, by outcome.", ("step", "status")),
    "step_seconds": Metric(
        "histogram", "Time an attempt took, in seconds.", ("step", "status"), WORK_SECONDS
    ),
    "recent_runs": Metric(
        "gauge",
        "Runs that wait, go on, or ended in the last day, by status.",
        ("workflow", "status"),
    ),
    "crawl_rows": Metric(
        "counter",
        "Rows that a source sent: new, known, rejected; and hours missing there.",
        ("family", "outcome"),
    ),
    "crawl_errors": Metric(
        "counter", "Windows that a source refused, by its code.", ("family", "code")
    ),
    "trials": Metric("counter", "Trials that ended in a study.", ("family",)),
    "best_metric": Metric(
        "gauge",
        "Best validation metric of the latest study (lower is better).",
        ("family",),
        keep_hours=24 * 30,
    ),
    "promotions": Metric(
        "gauge", "Moves of the alias champion so far, by action.", ("family", "action")
    ),
    "model_age_hours": Metric(
        "gauge", "Hours since the champion was promoted for the first time.", ("family",)
    ),
    # data
    "data_rows": Metric("gauge", "Stored rows.", ("family",)),
    "data_age_hours": Metric("gauge", "Age of the newest row, in hours.", ("family",)),
    "data_missing_hours": Metric(
        "gauge",
        "Hours of the last 30 days up to the newest row that are not stored.",
        ("family",),
    ),
    "data_failed_days": Metric(
        "gauge",
        "Days of the last 30 that the source refused and that are asked for again.",
        ("family",),
    ),
    "disk_free_bytes": Metric("gauge", "Bytes that are free where the home is."),
    "disk_size_bytes": Metric("gauge", "Bytes of the disk that the home is on."),
    # quality
    "live_error": Metric(
        "gauge", "Error of served predictions against the truth.", ("family", "version")
    ),
    "live_baseline_error": Metric(
        "gauge", "Error of the baseline on the same predictions.", ("family", "version")
    ),
    "test_error": Metric("gauge", "Error on the version's own test rows.", ("family", "version")),
    "truth_coverage": Metric(
        "gauge", "Share of the predicted values whose truth is known.", ("family", "version")
    ),
    "truths": Metric(
        "gauge", "Truths that the latest join brought, by outcome.", ("family", "outcome")
    ),
    "drift_score": Metric(
        "gauge",
        "Drift of an input as a multiple of its threshold; more than 1 has drifted.",
        ("family", "feature"),
    ),
    "drift_psi": Metric("gauge", "Population stability index of an input.", ("family", "feature")),
    "prediction_drift_score": Metric(
        "gauge", "Drift of the outputs as a multiple of its threshold.", ("family",)
    ),
    "decisions": Metric("counter", "Acts of the policy, dry ones included.", ("family", "action")),
}


def add(name: str, amount: float = 1, **labels: str) -> None:
    """Add to a counter; nothing happens in a process that has not joined a cluster: nobody would read it."""
    if exported() and amount > 0:
        _sink().add(name, "", amount, labels)


def announce(name: str, **labels: str) -> None:
    """Export a counter as 0, so that its first count is seen as an increase."""
    if exported():
        _sink().add(name, "", 0, labels)


def observe(name: str, value: float, **labels: str) -> None:
    """Put one value into a histogram."""
    bounds = METRICS[name].bounds
    counts = [0] * (len(bounds) + 1)
    counts[bisect_left(bounds, value)] = 1
    add_buckets(name, counts, value, **labels)


def add_buckets(name: str, counts: Sequence[int], total: float, **labels: str) -> None:
    """Put values into a histogram: how many lie in each bucket, the last one without a bound, and their sum.

    It is exported as counters. Ray's own histograms replay each value in the agent, as its bucket's middle: at
    thousands of requests a second that would cost more than counting them, and the sum would be a guess.
    """
    if not exported():
        return
    bounds = [*(f"{bound:g}" for bound in METRICS[name].bounds), "+Inf"]
    for le, count in zip(bounds, accumulate(counts), strict=True):
        _sink().add(name, "_bucket", count, {**labels, "le": le})
    _sink().add(name, "_sum", total, labels)
    _sink().add(name, "_count", sum(counts), labels)


def gauge(name: str, value: float, **labels: str) -> None:
    """Set a gauge that its caller sets again every few seconds; when it stops, the gauge vanishes."""
    if exported():
        _sink().set(name, value, labels)


def level(name: str, value: float, **labels: str) -> None:
    """Set a gauge that is measured now and then, by a process that lives on; it is exported for its `keep_hours`."""
    _levels().set(name, value, labels)


def exported() -> bool:
    """Return whether this process is one of a cluster, whose metrics are read."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


class Levels:
    """Values that are told to Ray again and again, until they are too old."""

    def __init__(
        self,
        send: Callable[[str, float, dict[str, str]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._clock = clock
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[float, float]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def set(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Hold a value under these labels, and begin to tell it."""
        _check(name, labels)
        with self._lock:
            self._values[name, tuple(sorted(labels.items()))] = (value, self._clock())
            if self._thread is None and exported():
                self._thread = threading.Thread(target=self._forever, name="levels", daemon=True)
                self._thread.start()

    def refresh(self) -> None:
        """Tell every value that is not too old, and forget the others."""
        now = self._clock()
        with self._lock:
            self._values = {
                (name, labels): (value, at)
                for (name, labels), (value, at) in self._values.items()
                if now - at <= METRICS[name].keep_hours * HOUR_SECONDS
            }
            held = list(self._values.items())
        for (name, labels), (value, _) in held:
            self._send(name, value, dict(labels))

    def _forever(self) -> None:
        while True:
            if exported():
                self.refresh()
            time.sleep(REFRESH_SECONDS)


class _Sink:
    """Ray's counters and gauges, each made when it is first used."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self._lock = threading.Lock()

    def add(self, name: str, part: str, amount: float, labels: dict[str, str]) -> None:
        from ray.util.metrics import Counter

        extra = ("le",) if part == "_bucket" else ()
        # Not `inc`: it refuses 0, by which a counter is known before it counts.
        self._vendor(Counter, name, part, extra, labels)._record(amount, labels)

    def set(self, name: str, value: float, labels: dict[str, str]) -> None:
        from ray.util.metrics import Gauge

        self._vendor(Gauge, name, "", (), labels).set(value, labels)

    def _vendor(
        self, make: Any, name: str, part: str, extra: tuple[str, ...], labels: dict[str, str]
    ) -> Any:
        _check(name, {label: "" for label in labels if label not in extra})
        with self._lock:
            key = name + part
            if key not in self._made:
                metric = METRICS[name]
                self._made[key] = make(
                    PREFIX + key, description=metric.about, tag_keys=(*metric.labels, *extra)
                )
            return self._made[key]


def _check(name: str, labels: dict[str, str]) -> None:
    wanted = METRICS[name].labels
    if set(labels) != set(wanted):
        raise ValueError(f"The metric {name} has the labels {wanted}, not {tuple(labels)}.")


@cache
def _sink() -> _Sink:
    return _Sink()


@cache
def _levels() -> Levels:
    return Levels(gauge_of_ray)


def gauge_of_ray(name: str, value: float, labels: dict[str, str]) -> None:
    """Set Ray's gauge at once."""
    _sink().set(name, value, labels)
