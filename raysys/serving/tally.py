"""What one replica counts of its requests: plain numbers while it answers, sent as metrics now and then."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from raysys import metrics
from raysys.records import LoadedVersion

BOUNDS = metrics.METRICS["request_seconds"].bounds
EXPECTED = (200, 422, 429, 500, 503)  # statuses whose first occurrence must be seen as an increase


class Tally:
    """Counts of one replica of one family. Counting costs a few dictionary accesses; `flush` does the rest.

    Labels are the family, the version and the status: never ids, never what a user sent.
    """

    def __init__(self, family: str) -> None:
        self.family = family
        self.ongoing = 0
        self.statuses: Counter[int] = Counter()
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.rows: Counter[str] = Counter()
        self.logged: Counter[str] = Counter()
        self._announced = False

    def count(self, status: int, seconds: float) -> None:
        """Count a request by its status and by how long it took."""
        self.statuses[status] += 1
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def add_rows(self, version: str, rows: int) -> None:
        """Count predicted rows by the version that predicted them."""
        self.rows[version] += rows

    def flush(self, state: LoadedVersion, refused: int, reachable: bool) -> None:
        """Send what was counted since the last time, and what the replica serves."""
        self._announce()
        self._flush_counts()
        of = {"family": self.family}
        metrics.gauge("requests_ongoing", self.ongoing, **of)
        metrics.gauge("model_version", float(state.version or 0), **of)
        metrics.gauge("refused_versions", refused, **of)
        metrics.gauge("registry_reachable", float(reachable), **of)
        if state.version:
            known = {**of, "version": state.version, "sha256": state.sha256[:12]}
            metrics.gauge("model_info", 1, **known)

    def _announce(self) -> None:
        if self._announced:
            return
        for status in EXPECTED:
            metrics.announce("requests", family=self.family, status=str(status))
        for outcome in ("stored", "skipped", "dropped"):
            metrics.announce("logged_requests", family=self.family, outcome=outcome)
        self._announced = True

    def _flush_counts(self) -> None:
        statuses, self.statuses = self.statuses, Counter()
        rows, self.rows = self.rows, Counter()
        logged, self.logged = self.logged, Counter()
        buckets, self.buckets = self.buckets, [0] * len(self.buckets)
        seconds, self.seconds = self.seconds, 0.0
        metrics.add_buckets("request_seconds", buckets, seconds, family=self.family)
        for status, count in statuses.items():
            metrics.add("requests", count, family=self.family, status=str(status))
        for version, count in rows.items():
            metrics.add("predictions", count, family=self.family, version=version)
        for outcome, count in logged.items():
            metrics.add("logged_requests", count, family=self.family, outcome=outcome)
