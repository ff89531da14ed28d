"""Starting workflows by the clock: what a schedule's tick does; which schedules there are is not here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from croniter import croniter  # type: ignore[import-untyped]  # DBOS brings it, and plans with it
from dbos import DBOS

from raysys import cluster
from raysys.durable import queues
from raysys.records import Schedule, plain, revive

NAME = f"{queues.INTERNAL}tick"
CONCURRENCY = 4


def apply(schedules: Sequence[Schedule]) -> None:
    """Make `schedules` the ones in force, and start once what was missed while nothing ran."""
    wanted = {each.name for each in schedules}
    for known in DBOS.list_schedules():
        if known["schedule_name"] not in wanted:
            DBOS.delete_schedule(known["schedule_name"])
    DBOS.apply_schedules(
        [
            {
                "schedule_name": each.name,
                "workflow_fn": _tick_function(),
                "schedule": each.cron,
                "context": plain(each),
                "cron_timezone": each.zone,
                "queue_name": NAME,
            }
            for each in schedules
        ]
    )
    for row in DBOS.list_schedules():
        _make_up(row, datetime.now(UTC))


def _tick_function() -> Any:
    from dbos._dbos import _get_or_create_dbos_registry

    return _get_or_create_dbos_registry().workflow_info_map[NAME]


def _make_up(row: Mapping[str, Any], now: datetime) -> None:
    fired = row.get("last_fired_at")
    if row["status"] != "ACTIVE" or not fired:
        return
    missed = list(
        between(row["schedule"], row["cron_timezone"] or "UTC", datetime.fromisoformat(fired), now)
    )
    if missed:
        instant = timedelta(seconds=1)
        DBOS.backfill_schedule(row["schedule_name"], missed[-1] - instant, missed[-1] + instant)


def between(cron: str, zone: str, since: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the moments of `cron` after `since` and up to `until`, aware, in `zone`."""
    steps = croniter(cron, since.astimezone(ZoneInfo(zone)), second_at_beginning=True)
    while (moment := steps.get_next(datetime)) <= until:
        if not doubled(cron, moment):
            yield moment


def doubled(cron: str, moment: datetime) -> bool:
    """Return whether `moment` is the second of its hour, on the day that summer time ends.

    A schedule of certain hours then runs at the first only; one of every hour runs at both.
    """
    hour = cron.split()[-4]
    return moment.fold == 1 and not hour.startswith("*")


def reason_to_wait(schedule: Schedule, moment: str) -> str:
    """Return why the run of `moment` should not be started, or an empty text.

    `only_if` names a function (`module:function`) that takes the schedule's arguments and returns such a reason.
    """
    if doubled(schedule.cron, _at(moment).astimezone(ZoneInfo(schedule.zone))):
        return "this hour was already, before summer time ended"
    if schedule.only_if is None:
        return ""
    return str(cluster.load(schedule.only_if)(*schedule.args) or "")


def enqueue(schedule: Schedule, moment: str) -> str:
    """Put the schedule's run into its queue; while one of the same schedule waits or runs, return that."""
    handle = DBOS.enqueue_workflow_with_options(
        {
            "workflow_name": schedule.workflow,
            "queue_name": queues.queue_of(schedule.workflow, schedule.args),
            "workflow_id": run_id(schedule, moment),
            "deduplication_id": dedup_key(schedule),
            "duplication_policy": "return-existing",
        },
        *schedule.args,
    )
    return str(handle.get_workflow_id())


def dedup_key(schedule: Schedule) -> str:
    """Return what two runs of one schedule have in common: of those that wait or run there is one."""
    return f"schedule:{schedule.name}"


def run_id(schedule: Schedule, moment: str) -> str:
    """Return the id of the run that the schedule starts at `moment`: the same moment, the same run."""
    return f"{schedule.name}-{_at(moment).astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _at(moment: str) -> datetime:
    return datetime.fromisoformat(moment)


def schedule_of(row: Mapping[str, Any]) -> Schedule:
    """Return the engine's `row` as a record."""
    planned = revive(dict(row["context"]), Schedule)
    fired = row.get("last_fired_at")
    paused = row["status"] != "ACTIVE"
    following = croniter(
        planned.cron, datetime.now(ZoneInfo(planned.zone)), second_at_beginning=True
    ).get_next(datetime)
    return Schedule(
        name=planned.name,
        workflow=planned.workflow,
        args=planned.args,
        cron=planned.cron,
        zone=planned.zone,
        only_if=planned.only_if,
        paused=paused,
        last_at=datetime.fromisoformat(fired) if fired else None,
        next_at=None if paused else following.astimezone(UTC),
    )
