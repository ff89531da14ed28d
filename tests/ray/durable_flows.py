"""Tiny workflows for the tests of the engine, in a module that every process of the test cluster can import."""

from __future__ import annotations

import os
import time
from pathlib import Path

from raysys import durable
from raysys.durable.service import Service
from raysys.errors import NotFound, SourceBusy
from raysys.settings import Settings


class Worker(Service):
    def __init__(self) -> None:
        super().__init__(Settings(), ["durable_flows"])


def mark(folder: str, name: str) -> int:
    """Leave a file for each time that a step began, and return how often that was."""
    Path(folder, f"{name}-{time.time_ns()}-{os.getpid()}").touch()
    return len(list(Path(folder).glob(f"{name}-*")))


@durable.step(where="ray", num_cpus=0)
def remember(folder: str, name: str) -> dict[str, int]:
    durable.notify("half", done=1, total=2)
    return {"times": mark(folder, name), "pid": os.getpid()}


@durable.step(where="ray", num_cpus=1)
def hold(folder: str, name: str) -> int:
    """Last until the file `go` is there."""
    times = mark(folder, name)
    while not Path(folder, "go").exists():
        time.sleep(0.05)
    return times


@durable.step()
def here(folder: str, name: str) -> int:
    return mark(folder, name)


@durable.step(where="ray", num_cpus=0)
def lost(what: str) -> None:
    raise NotFound(f"There is no {what}.", what=what)


@durable.step(where="ray", num_cpus=0)
def broken() -> None:
    raise ZeroDivisionError("by zero")


@durable.step(retry_on=(SourceBusy,), max_retries=3, retry_seconds=0.01)
def busy(folder: str, until: int) -> int:
    times = mark(folder, "busy")
    if times < until:
        raise SourceBusy("busy", code="05")
    return times


@durable.step(where="ray", num_cpus=0, catch_exceptions=True)
def caught() -> int:
    raise ValueError("caught")


@durable.step(where="ray", num_cpus=0)
def large() -> str:
    return "x" * 200_000


@durable.step(where="ray", num_cpus=0, timeout_seconds=1.5)
def slow() -> None:
    time.sleep(60)


@durable.workflow()
def three(folder: str) -> list[int]:
    first = remember(folder, "one")["times"]
    second = hold(folder, "two")
    return [first, second, here(folder, "three")]


@durable.workflow()
def failing(kind: str) -> None:
    {"lost": lambda: lost("thing"), "broken": broken, "large": large, "slow": slow}[kind]()


@durable.workflow()
def retried(folder: str) -> list[object]:
    return [busy(folder, 3), caught()]


@durable.workflow()
def nested(folder: str) -> list[int]:
    return [inner(folder), here(folder, "outer")]


@durable.workflow()
def inner(folder: str) -> int:
    return here(folder, "inner")


@durable.workflow()
def waiting(seconds: float) -> object:
    durable.sleep(seconds)
    return durable.wait_for_event("news", timeout_seconds=30)


@durable.workflow()
def many(steps: int) -> int:
    for _ in range(steps):
        nothing()
    return steps


@durable.step()
def nothing() -> None:
    return None


@durable.step(where="ray", num_cpus=0, spawns=True, max_retries=1, retry_seconds=0.01)
def reserve(folder: str) -> int:
    """Hold a CPU by a placement group, as Ray Tune does, until the file `go` is there."""
    from ray.util import placement_group, remove_placement_group

    group = placement_group([{"CPU": 1}])
    group.wait(30)
    times = mark(folder, "reserve")
    while not Path(folder, "go").exists():
        time.sleep(0.05)
    remove_placement_group(group)
    return times


@durable.workflow()
def reserving(folder: str) -> int:
    return reserve(folder)
