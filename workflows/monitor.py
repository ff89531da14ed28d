"""The durable monitor: every hour the state of data and runs, as metrics and in the run's result."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from raysys import durable, families, metrics
from raysys.records import Level, plain
from raysys.runtime import Runtime


@durable.workflow(name="monitor")
def monitor() -> dict[str, Any]:
    """Measure the freshness and gaps of each family's data, and how the runs of the last day went."""
    return {"levels": measure()}


# In the worker, which lives on: what a Ray task exports is gone with its process.
@durable.step()
def measure() -> list[dict[str, Any]]:
    """Measure, set the metrics, and return what was measured."""
    from raysys.pipelines import monitor as pipeline

    now = datetime.now(UTC)
    with Runtime() as runtime:
        levels: list[Level] = []
        for name in runtime.settings.families or families.names():
            family = families.get(name)
            levels += pipeline.data_levels(runtime.engine, family, runtime.settings, now)
        levels += pipeline.run_levels(runtime.durable, now)
    for level in levels:
        metrics.level(level.name, level.value, **level.labels)
    return [dict(plain(level)) for level in levels]
