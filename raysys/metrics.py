"""The metrics of raysys: declared once, counted as plain integers, sent to Ray now and then."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

PREFIX = "raysys_"
SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)  # bounds of histograms of work


class Tally:
    """Counts of one replica of one family. Adding costs a dictionary access; `flush` does the rest.

    Labels are the family, the version and the status: never ids, never what a user sent.
    """

    def __init__(self, family: str) -> None:
        self.family = family
        self.statuses: Counter[int] = Counter()
        self.rows: Counter[str] = Counter()
        self.logged: Counter[str] = Counter()
        self._vendor: dict[str, Any] = {}

    def count(self, status: int) -> None:
        """Count a request by its status."""
        self.statuses[status] += 1

    def add_rows(self, version: str, rows: int) -> None:
        """Count predicted rows by the version that predicted them."""
        self.rows[version] += rows

    def flush(self, serving: str, refused: int) -> None:
        """Send what was counted since the last time, the version that serves, and the refusals."""
        statuses, self.statuses = self.statuses, Counter()
        rows, self.rows = self.rows, Counter()
        for status, count in statuses.items():
            self._counter("requests", "Requests by status.", "status").inc(
                count, {"family": self.family, "status": str(status)}
            )
        for version, count in rows.items():
            self._counter("predictions", "Predicted rows by version.", "version").inc(
                count, {"family": self.family, "version": version}
            )
        logged, self.logged = self.logged, Counter()
        for outcome, count in logged.items():
            self._counter("logged_requests", "Requests by what their log did.", "outcome").inc(
                count, {"family": self.family, "outcome": outcome}
            )
        self._gauge("model_version", "The version that serves, as a number.").set(
            float(serving or 0), {"family": self.family}
        )
        self._gauge("refused_versions", "Versions that this replica refused.").set(
            refused, {"family": self.family}
        )

    def _counter(self, name: str, description: str, label: str) -> Any:
        from ray.util.metrics import Counter as RayCounter

        if name not in self._vendor:
            self._vendor[name] = RayCounter(
                PREFIX + name, description=description, tag_keys=("family", label)
            )
        return self._vendor[name]

    def _gauge(self, name: str, description: str) -> Any:
        from ray.util.metrics import Gauge

        if name not in self._vendor:
            self._vendor[name] = Gauge(PREFIX + name, description=description, tag_keys=("family",))
        return self._vendor[name]


class Work:
    """Runs and steps of workflows that ended in this process, by workflow, family, step and outcome.

    Nothing happens in a process that has not joined a cluster: nobody would read its metrics.
    """

    def __init__(self) -> None:
        self._vendor: dict[str, Any] = {}

    def run_ended(self, workflow: str, family: str, status: str, seconds: float) -> None:
        """Count a run by its outcome, and how long it took since it began here."""
        labels = {"workflow": workflow, "family": family, "status": status}
        self._count("runs", "Workflow runs that ended, by outcome.", labels)
        self._observe("run_seconds", "How long runs took, in seconds.", seconds, labels)

    def step_ended(self, step: str, status: str, seconds: float) -> None:
        """Count an attempt of a step by its outcome, and how long it took."""
        labels = {"step": step, "status": status}
        self._count("steps", "Attempts of workflow steps that ended, by outcome.", labels)
        self._observe("step_seconds", "How long attempts took, in seconds.", seconds, labels)

    def _count(self, name: str, description: str, labels: dict[str, str]) -> None:
        if not exported():
            return
        from ray.util.metrics import Counter as RayCounter

        if name not in self._vendor:
            self._vendor[name] = RayCounter(
                PREFIX + name, description=description, tag_keys=tuple(labels)
            )
        self._vendor[name].inc(1, labels)

    def _observe(self, name: str, description: str, seconds: float, labels: dict[str, str]) -> None:
        if not exported():
            return
        from ray.util.metrics import Histogram

        if name not in self._vendor:
            self._vendor[name] = Histogram(
                PREFIX + name,
                description=description,
                boundaries=list(SECONDS),
                tag_keys=tuple(labels),
            )
        self._vendor[name].observe(seconds, labels)


class Levels:
    """Values that are measured now and then, such as the age of the newest row, by their labels."""

    def __init__(self) -> None:
        self._vendor: dict[str, Any] = {}

    def set(self, name: str, description: str, value: float, labels: dict[str, str]) -> None:
        """Set the value under these labels; the same name has the same labels always."""
        if not exported():
            return
        from ray.util.metrics import Gauge

        if name not in self._vendor:
            self._vendor[name] = Gauge(
                PREFIX + name, description=description, tag_keys=tuple(labels)
            )
        self._vendor[name].set(value, labels)


def exported() -> bool:
    """Return whether this process is one of a cluster, whose metrics are read."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
