"""Every workflow that starts by the clock, in one table; the workflows themselves are in their modules."""

from __future__ import annotations

from datetime import datetime

from raysys import families
from raysys.families.base import Series
from raysys.records import Schedule
from raysys.runtime import Runtime
from raysys.settings import Settings
from workflows import train

CRAWL_CRON = "17 */6 * * *"
TRAIN_CRON = "47 3 * * *"
MAINTENANCE_CRON = "33 4 * * *"
MONITOR_CRON = "7 * * * *"
QUALITY_CRON = "37 * * * *"  # long enough after a crawl of :17 began


def table(settings: Settings) -> list[Schedule]:
    """Return the schedules of the families that settings name: minute, hour, day, month, weekday, in UTC."""
    names = settings.families or families.names()
    crawled = [name for name in names if isinstance(families.get(name).data, Series)]
    return [
        *(
            Schedule(name=f"crawl-{name}", workflow="crawl", args=[name], cron=CRAWL_CRON)
            for name in crawled
        ),
        *(_training(name) for name in names),
        *(
            Schedule(name=f"quality-{name}", workflow="quality", args=[name], cron=QUALITY_CRON)
            for name in names
        ),
        Schedule(name="maintenance", workflow="maintenance", args=[], cron=MAINTENANCE_CRON),
        Schedule(name="monitor", workflow="monitor", args=[], cron=MONITOR_CRON),
    ]


def _training(family: str) -> Schedule:
    return Schedule(
        name=f"train-{family}",
        workflow="train",
        args=[family],
        cron=TRAIN_CRON,
        only_if=f"{__name__}:{nothing_new.__name__}",
    )


def training_key(family: str) -> str:
    """Return what the trainings of a family's schedule have in common: of those that wait or run there is one."""
    from raysys.durable import ticks

    return ticks.dedup_key(_training(family))


def nothing_new(family: str) -> str:
    """Return why a training of `family` would learn nothing new, or an empty text.

    What counts is when a row was stored last, and when the last training that succeeded took its snapshot.
    """
    from raysys.sources import series_name
    from raysys.store import examples, observations

    with Runtime() as runtime:
        if isinstance(families.get(family).data, Series):
            newest = observations.newest(runtime.engine, series_name(runtime.settings))
        else:
            newest = examples.newest(runtime.engine, family)
        trained = trained_at(runtime, family)
    if newest is None:
        return f"{family} has no rows yet"
    known = trained is not None and newest <= trained
    return f"{family} has no rows that its last training lacked" if known else ""


def trained_at(runtime: Runtime, family: str) -> datetime | None:
    """Return when the last training of `family` began to read its rows; None when that did not succeed."""
    from raysys.store import events

    taken = events.latest(runtime.engine, train.take_snapshot.name, family)
    if taken is None:
        return None
    story = [event for _, event in events.after(runtime.engine, taken.workflow_id)]
    if not any(event.step == "run" and event.message == "succeeded" for event in story):
        return None
    return next(event.at for event in story if event.step == taken.step)
