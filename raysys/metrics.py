"""The metrics of raysys: declared once, counted as plain integers, sent to Ray now and then."""

from __future__ import annotations

from collections import Counter
from typing import Any

PREFIX = "raysys_"


class Tally:
    """Counts of one replica of one family. Adding costs a dictionary access; `flush` does the rest.

    Labels are the family, the version and the status: never ids, never what a user sent.
    """

    def __init__(self, family: str) -> None:
        self.family = family
        self.statuses: Counter[int] = Counter()
        self.rows: Counter[str] = Counter()
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
