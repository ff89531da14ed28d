"""One crawl, window by window: what is to be asked for, asking, storing; the loop around it is not here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from raysys.errors import Conflict, InvalidInput, QuotaExhausted, SourceBusy
from raysys.pipelines import validate
from raysys.records import Window, WindowReport
from raysys.sources.base import HourlySource
from raysys.store import ledger, observations

SIMULATED = "sample"
HOUR = timedelta(hours=1)
ONE_DAY = timedelta(days=1)
OWN_FAULT = {
    "10",
    "11",
    "99",
    "400",
}  # codes that speak of this window; any other refusal is of all


def plan(
    engine: sa.Engine,
    source: HourlySource,
    *,
    since: date | None,
    until: date | None,
    now: datetime,
    history_days: int,
) -> list[Window]:
    """Return the windows to ask for: every day from `since` to `until` that is not complete yet.

    Without `since`, the days begin with the first that was ever asked for, so that holes are found,
    or `history_days` back. `until` is at most the last published day. Days of the source's calendar.
    """
    refuse_mixture(engine, source.name, source.series)
    last = source.last_hour(now)
    last_day = last.astimezone(source.zone).date()
    until = min(until or last_day, last_day)
    known = ledger.first_day(engine, source.name, source.series)
    since = since or known or until - timedelta(days=history_days - 1)
    if since > last_day:
        raise InvalidInput(f"{source.name} has nothing after {last_day} yet; since is {since}.")
    if since > until:
        raise InvalidInput(f"until ({until}) is before since ({since}): name an earlier since.")
    complete = ledger.complete_days(engine, source.name, source.series, since, until)
    wanted = [day for day in _days(since, until) if day not in complete]
    runs = _runs(wanted, max(1, source.window_hours // 24))
    return [_window(run[0], run[-1], source.zone, last) for run in runs]


def fetch_window(
    engine: sa.Engine,
    source: HourlySource,
    family_name: str,
    window: Window,
    *,
    workflow_id: str | None,
    now: datetime,
) -> WindowReport:
    """Ask for `window`, judge its rows, and store them with the days in one transaction.

    Of the rows read, those neither new, known nor rejected were repetitions of another.
    """
    frame = source.fetch(window)
    good, rejected = validate.weather(frame, since=window.start, until=window.end)
    last = source.last_hour(now)
    new, known = observations.store_window(
        engine,
        family=family_name,
        source=source.name,
        series=source.series,
        frame=good,
        rejections=rejected,
        days=_ledger_days(window, source.zone, last, list(good["time"])),
        workflow_id=workflow_id,
        now=now,
    )
    published = int((min(window.end, last) - window.start) / HOUR) + 1
    return WindowReport(
        window=window,
        read=len(frame),
        new=new,
        known=known,
        rejected=len(rejected),
        missing_hours=max(0, published - len(good)),
    )


def note_failure(
    engine: sa.Engine,
    source: HourlySource,
    window: Window,
    error: Exception,
    *,
    workflow_id: str | None,
    now: datetime,
) -> bool:
    """Mark the days of `window` to be asked for again; return whether the crawl should stop here.

    It goes on after a failure that passes or that is the window's own, and stops when the source
    refuses altogether (key, quota, address).
    """
    ledger.mark_failed(
        engine,
        source=source.name,
        series=source.series,
        days=list(_days(*_local_days(window, source.zone))),
        error=str(error),
        workflow_id=workflow_id,
        now=now,
    )
    return should_stop(error)


def refuse_mixture(engine: sa.Engine, source: str, series: str) -> None:
    """Raise Conflict when hours of `source` would make `series` half invented and half observed."""
    others = set(observations.sources(engine, series)) - {source}
    if others and SIMULATED in {source, *others}:
        raise Conflict(
            f"The series {series} holds hours of {', '.join(sorted(others))}; those of {source} "
            "would mix simulated weather with observed. Set RAYSYS_ATMOS_STATION to another name "
            "to keep them apart, or RAYSYS_ATMOS_SOURCE to another source.",
            series=series,
        )


def should_stop(error: Exception) -> bool:
    """Say whether asking for other windows is pointless after `error`."""
    if isinstance(error, QuotaExhausted):
        return True
    code = getattr(error, "fields", {}).get("code")
    return not isinstance(error, SourceBusy) and code not in OWN_FAULT


def _days(since: date, until: date) -> Iterator[date]:
    while since <= until:
        yield since
        since += ONE_DAY


def _runs(days: list[date], longest: int) -> list[list[date]]:
    """Cut `days` into runs of neighbours, each at most `longest` days."""
    runs: list[list[date]] = []
    for day in days:
        if runs and day - runs[-1][-1] == ONE_DAY and len(runs[-1]) < longest:
            runs[-1].append(day)
        else:
            runs.append([day])
    return runs


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(0), zone).astimezone(UTC)


def _window(first: date, last: date, zone: ZoneInfo, published: datetime) -> Window:
    end = _midnight(last + ONE_DAY, zone) - HOUR
    return Window(start=_midnight(first, zone), end=min(end, published))


def _local_days(window: Window, zone: ZoneInfo) -> tuple[date, date]:
    return window.start.astimezone(zone).date(), window.end.astimezone(zone).date()


def _ledger_days(
    window: Window, zone: ZoneInfo, last: datetime, times: list[datetime]
) -> list[ledger.Day]:
    """Return an entry for each day of `window`; complete are those that were wholly published."""
    hours = Counter(time.astimezone(zone).date() for time in times)
    days = []
    for day in _days(*_local_days(window, zone)):
        start, end = _midnight(day, zone), _midnight(day + ONE_DAY, zone) - HOUR
        whole = window.start <= start and end <= min(window.end, last)
        state: Literal["complete", "partial"] = "complete" if whole else "partial"
        days.append(ledger.Day(day=day, state=state, hours=hours[day]))
    return days
