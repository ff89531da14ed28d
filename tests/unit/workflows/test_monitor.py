from __future__ import annotations

import pytest

from raysys import metrics
from raysys.errors import Unavailable
from workflows.monitor import Pulse


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the worker says of itself."""
    values: list[float] = []
    monkeypatch.setattr(metrics, "gauge", lambda _name, value: values.append(value))
    return values


def test_a_worker_that_is_not_ready_says_so_and_measures_nothing(beats: list[float]) -> None:
    shown: list[int] = []
    pulse = Pulse(lambda: False, lambda: shown.append(1))
    pulse.beat(show_too=True)
    assert (beats, shown) == ([0.0], [])


def test_a_measurement_that_fails_does_not_stop_the_pulse(beats: list[float]) -> None:
    def fail() -> None:
        raise Unavailable("no database")

    pulse = Pulse(lambda: True, fail)
    pulse.beat(show_too=True)
    pulse.beat(show_too=False)
    assert beats == [1.0, 1.0]
