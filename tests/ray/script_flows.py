"""A script as it was written for Ray Workflows, with its imports and decorators adapted; no worker knows it before."""

from __future__ import annotations

from raysys import durable
from raysys.errors import SourceBusy

tries = {"count": 0}


@durable.step(where="ray", num_cpus=0)
def add(left: int, right: int) -> int:
    return left + right


@durable.step(retry_on=(SourceBusy,), max_retries=2, retry_seconds=0.01)
def shaky() -> str:
    tries["count"] += 1
    if tries["count"] < 2:
        raise SourceBusy("not yet")
    return "in the end"


@durable.step(where="ray", num_cpus=0, catch_exceptions=True)
def divide(by: int) -> float:
    return 1 / by


@durable.workflow()
def factorial(number: int) -> int:
    return 1 if number <= 1 else add(0, number * factorial(number - 1))


@durable.workflow()
def everything(number: int) -> dict[str, object]:
    whole, fault = divide(0)  # type: ignore[misc]  # catch_exceptions gives a pair
    return {
        "product": factorial(number),
        "shaky": shaky(),
        "whole": whole,
        "fault": fault,
        "event": durable.wait_for_event("approved", timeout_seconds=30),
    }
