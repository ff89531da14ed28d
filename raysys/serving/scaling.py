"""How many replicas a family gets: as many as it takes to keep each busy for a part of its time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

POLICY = f"{__name__}:by_busyness"
BUSY = "busy"
TARGET = 0.6  # of a replica's time; the rest is room for what comes in bursts
NANOSECONDS = 1e9


class Busyness:
    """The share of time that a thread worked, or could have worked if it had been given a CPU.

    Requests that are under way say little of a replica that answers one after the other: it never
    has more than it has. Waiting for a CPU counts, or a crowded machine would hide the demand.
    """

    def __init__(self) -> None:
        self._file = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._at, self._worked = time.monotonic(), self._seconds()

    def share(self) -> float:
        """Return the share, 0 to 1, since this was asked last."""
        at, worked = time.monotonic(), self._seconds()
        share = (worked - self._worked) / max(at - self._at, 1e-6)
        self._at, self._worked = at, worked
        return max(0.0, min(share, 1.0))

    def _seconds(self) -> float:
        try:
            running, waiting, *_ = self._file.read_text().split()
        except (OSError, ValueError):  # not Linux, or a kernel without these counts
            return time.thread_time()
        return (int(running) + int(waiting)) / NANOSECONDS


def by_busyness(context: Any) -> tuple[float, dict[str, Any]]:
    """Return the replicas that Serve is to aim at, which keeps within the bounds and delays of the config."""
    shares = (context.aggregated_metrics or {}).get(BUSY, {})
    if not shares:
        return context.target_num_replicas, {}
    # A replica that has not told anything yet is as busy as the others.
    mean = sum(shares.values()) / len(shares)
    return mean * context.current_num_replicas / TARGET, {}
