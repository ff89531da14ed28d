"""Every workflow that starts by the clock, in one table; the workflows themselves are in their modules."""

from __future__ import annotations

from raysys import families
from raysys.families.base import Series
from raysys.records import Schedule
from raysys.runtime import Runtime
from raysys.settings import Settings

CRAWL_CRON = "17 */6 * * *"
TRAIN_CRON = "47 3 * * *"


def table(settings: Settings) -> list[Schedule]:
    """Return the schedules of the families that settings name: minute, hour, day, month, weekday, in UTC."""
    names = settings.families or families.names()
    crawled = [name for name in names if isinstance(families.get(name).data, Series)]
    return [
        *(
            Schedule(name=f"crawl-{name}", workflow="crawl", args=[name], cron=CRAWL_CRON)
            for name in crawled
        ),
        *(
            Schedule(
                name=f"train-{name}",
                workflow="train",
                args=[name],
                cron=TRAIN_CRON,
                only_if=f"{__name__}:{nothing_new.__name__}",
            )
            for name in names
        ),
    ]


def nothing_new(family: str) -> str:
    """Return why a training of `family` would learn nothing new, or an empty text."""
    from raysys.sources import series_name
    from raysys.store import examples, observations, snapshots

    with Runtime() as runtime:
        last = snapshots.latest(runtime.engine, family)
        if isinstance(families.get(family).data, Series):
            _, newest, rows = observations.span(runtime.engine, series_name(runtime.settings))
            until = last.time_to if last is not None else None
            known = until is not None and newest is not None and newest <= until
        else:
            rows = examples.count(runtime.engine, family)
            known = last is not None and rows <= last.rows
    if rows == 0:
        return f"{family} has no rows yet"
    return f"{family} has no rows that its last snapshot lacks" if known else ""
