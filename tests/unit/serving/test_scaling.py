"""How busy a thread is, and how many replicas that makes."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from raysys.serving.scaling import Busyness, by_busyness


def context(shares: dict[str, float], now: int = 1) -> Any:
    metrics = {"busy": shares} if shares else {}
    return SimpleNamespace(
        aggregated_metrics=metrics, current_num_replicas=now, target_num_replicas=now
    )


CASES = {
    "idle": ({"a": 0.01}, 1, 0.0166),
    "as it should be": ({"a": 0.6}, 1, 1.0),
    "full": ({"a": 1.0}, 1, 1.667),
    "one of two has told": ({"a": 1.0}, 2, 3.333),
    "both bored": ({"a": 0.1, "b": 0.2}, 2, 0.5),
    "nobody has told": ({}, 2, 2),
}


@pytest.mark.parametrize(("shares", "now", "wanted"), CASES.values(), ids=CASES.keys())
def test_replicas_follow_how_busy_they_are(
    shares: dict[str, float], now: int, wanted: float
) -> None:
    assert by_busyness(context(shares, now))[0] == pytest.approx(wanted, rel=0.01)


def test_a_working_thread_is_busy_and_a_waiting_one_is_not() -> None:
    busyness = Busyness()
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        pass
    assert busyness.share() > 0.7
    threading.Event().wait(0.1)
    assert busyness.share() < 0.3
