"""Workflows of the unit tests: every step runs in the test's own process."""

from __future__ import annotations

import threading

from raysys import durable
from raysys.errors import Conflict, Unavailable
from raysys.records import Record

calls: list[str] = []


class Sum(Record, frozen=True):
    value: int


@durable.step()
def add(left: int, right: int) -> Sum:
    calls.append("add")
    durable.notify("adding", done=1, total=1)
    return Sum(value=left + right)


@durable.step()
def refuse(reason: str) -> None:
    calls.append("refuse")
    if reason:
        raise Conflict(reason, reason=reason)


@durable.step(retry_seconds=0.001)
def away(times: int) -> int:
    calls.append("away")
    if calls.count("away") <= times:
        raise Unavailable("away")
    return calls.count("away")


@durable.workflow()
def adding(left: int, right: int) -> int:
    return add(left, right).value


@durable.workflow()
def handling(reason: str) -> str:
    """What a failed step raises is caught alike in the first run and in a replay."""
    try:
        refuse(reason)
    except Conflict as error:
        adding(1, 1)
        return error.message
    return "done"


@durable.workflow()
def returning(times: int) -> int:
    return away(times)


@durable.step()
def count(seconds: float) -> int:
    threading.Event().wait(seconds)
    calls.append("count")
    return 1


@durable.workflow()
def counting(steps: int, seconds: float) -> int:
    return sum(count(seconds) for _ in range(steps))


@durable.workflow()
def about(family: str) -> str:
    return family


@durable.workflow()
def listening(timeout_seconds: float | None) -> object:
    return durable.wait_for_event("news", timeout_seconds)


@durable.workflow()
def refusing() -> None:
    refuse("no")
