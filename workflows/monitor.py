"""The state of data, models, runs and disk: as metrics every minute, and in the result of an hourly run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from raysys import durable, families, log, metrics
from raysys.records import Level, plain
from raysys.runtime import Runtime

MEASURE_SECONDS = 60.0
BEAT_SECONDS = metrics.REFRESH_SECONDS


@durable.workflow(name="monitor")
def monitor() -> dict[str, Any]:
    """Measure the freshness and gaps of each family's data, and how the runs of the last day went."""
    return {"levels": measure()}


@durable.step()
def measure() -> list[dict[str, Any]]:
    """Measure, set the metrics, and return what was measured."""
    return [dict(plain(level)) for level in show()]


def show() -> list[Level]:
    """Measure and set the metrics; in the worker, as what a Ray task exports is gone with its process."""
    from raysys.pipelines import monitor as pipeline

    now = datetime.now(UTC)
    with Runtime() as runtime:
        levels = pipeline.disk_levels(runtime.settings.home)
        for name in runtime.settings.families or families.names():
            family = families.get(name)
            levels += pipeline.data_levels(runtime.engine, family, runtime.settings, now)
            levels += pipeline.model_levels(runtime.engine, family, now)
        levels += pipeline.run_levels(runtime.durable, now)
    for level in levels:
        metrics.level(level.name, level.value, **level.labels)
    return levels


class Pulse:
    """Says every few seconds that the worker lives, and shows the metrics every minute, until its process ends."""

    def __init__(self, ready: Callable[[], bool], shown: Callable[[], object] = show) -> None:
        self._ready = ready
        self._show = shown
        self._log = log.get("monitor")
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the thread of it."""
        threading.Thread(target=self._forever, name="pulse", daemon=True).start()

    def beat(self, show_too: bool) -> None:
        """Say whether the worker is ready, and measure if it is."""
        ready = self._ready()
        metrics.gauge("worker_up", float(ready))
        if not (ready and show_too):
            return
        try:
            self._show()
        except Exception as error:  # noqa: BLE001  the rim: without a database it tries on
            self._log.warning("not measured", error=str(error)[:200])

    def _forever(self) -> None:
        beats = round(MEASURE_SECONDS / BEAT_SECONDS)
        beat = 0
        while not self._ended.wait(BEAT_SECONDS):
            self.beat(show_too=beat % beats == 0)
            beat += 1
