from __future__ import annotations

from datetime import UTC, datetime

import pytest

from raysys.durable import ticks
from raysys.records import Schedule


@pytest.mark.parametrize(
    ("cron", "zone", "since", "until", "hours"),
    [
        ("0 */6 * * *", "UTC", "2024-03-30T23:00", "2024-03-31T23:00", [0, 6, 12, 18]),
        # Seoul knows no summer time: three in the morning there is 18 h the day before here.
        ("0 3 * * *", "Asia/Seoul", "2024-01-01T00:00", "2024-01-03T00:00", [18, 18]),
        # Berlin jumps from two to three o'clock, and back from three to two: each day has one run.
        ("0 4 * * *", "Europe/Berlin", "2024-03-30T00:00", "2024-04-01T12:00", [3, 2, 2]),
        ("0 4 * * *", "Europe/Berlin", "2024-10-26T00:00", "2024-10-28T12:00", [2, 3, 3]),
    ],
)
def test_moments_of_a_schedule(
    cron: str, zone: str, since: str, until: str, hours: list[int]
) -> None:
    start, end = (datetime.fromisoformat(each).replace(tzinfo=UTC) for each in (since, until))
    found = [moment.astimezone(UTC).hour for moment in ticks.between(cron, zone, start, end)]
    assert found == hours


@pytest.mark.parametrize(("day", "moments"), [("2024-03-31", 1), ("2024-10-27", 1)])
def test_hour_that_is_lost_or_doubled_gives_one_run(day: str, moments: int) -> None:
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    end = start.replace(hour=23)
    found = list(ticks.between("30 2 * * *", "Europe/Berlin", start, end))
    assert len(found) == moments


def test_schedule_of_every_hour_runs_in_both_of_a_doubled_hour() -> None:
    start = datetime(2024, 10, 26, 23, 45, tzinfo=UTC)
    found = ticks.between(
        "30 * * * *", "Europe/Berlin", start, start.replace(day=27, hour=2, minute=0)
    )
    assert len(list(found)) == 2


def test_tick_in_a_doubled_hour_waits() -> None:
    schedule = Schedule(name="x", workflow="x", args=[], cron="30 2 * * *", zone="Europe/Berlin")
    assert ticks.reason_to_wait(schedule, "2024-10-27T02:30:00+02:00") == ""
    assert "summer time" in ticks.reason_to_wait(schedule, "2024-10-27T02:30:00+01:00")


def test_same_moment_is_the_same_run() -> None:
    schedule = Schedule(name="crawl-x", workflow="crawl", args=["x"], cron="0 4 * * *")
    ids = {
        ticks.run_id(schedule, text)
        for text in (
            "2024-03-31T04:00:00+02:00",
            "2024-03-31T02:00:00Z",
            "2024-03-31T02:00:00+00:00",
        )
    }
    assert ids == {"crawl-x-20240331T020000Z"}
