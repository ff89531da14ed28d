"""What a canary's live error is: the challenger's own requests, answered again by the champion."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from raysys import families
from raysys.families.insurance import Insurance
from raysys.pipelines import rollout as pipeline
from raysys.pipelines import truth
from raysys.records import Feedback, revive
from raysys.serving.rollout import Live, Rollout, Tried
from raysys.settings import Settings
from raysys.store import feedback, predictions
from tests.conftest import NOW
from tests.unit.serving.tiny import scaled
from tests.world import Shelf

FAMILY = families.get("insurance")
MINUTE = timedelta(minutes=1)
ROLLOUT = Rollout(id="trial", version="2", percent=10)


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A champion that says the age, and a challenger that says twice as much."""
    monkeypatch.setattr(Insurance, "decode", lambda _self, out: out[:, 0].tolist())
    shelf = Shelf()
    for scale in (1.0, 2.0):
        shelf.add("insurance", scaled(6, scale), {})
    shelf.set_alias("insurance", "champion", "1")
    shelf.set_alias("insurance", "challenger", "2")
    return shelf


def answer(engine: sa.Engine, settings: Settings, known: int) -> None:
    """Log 40 answers of the challenger and one of before; send in what was true of the first `known`."""
    ages = range(20, 60)
    rest = {"family": "insurance", "version": "2", "latency_ms": 1.0}
    rows = [
        {
            "id": uuid.uuid4().hex,
            "request_id": f"r-{age}",
            "at": NOW - (5 if age > 20 else 500) * MINUTE,
            "inputs": {**FAMILY.example, "age": age},
            "outputs": 2.0 * age,
            **rest,
        }
        for age in (20, *ages[1:])
    ]
    predictions.append_many(engine, rows)
    said = [
        revive({"request_id": f"r-{age}", "values": [age + 1.0]}, Feedback)
        for age in ages[: known + 1]
    ]
    feedback.add(engine, "insurance", said, source="test", now=NOW)
    truth.join(engine, FAMILY, settings, now=NOW)


def live(engine: sa.Engine, shelf: Any) -> Live | None:
    return pipeline.live_error(
        engine,
        shelf,
        family="insurance",
        rollout=ROLLOUT,
        champion="1",
        since=NOW - 10 * MINUTE,
        now=NOW,
    )


def test_before_any_truth_nothing_is_said(engine: sa.Engine, shelf: Any) -> None:
    assert live(engine, shelf) is None


def test_both_are_judged_by_the_same_requests_since_the_trial_began(
    engine: sa.Engine, settings: Settings, shelf: Any
) -> None:
    answer(engine, settings, known=35)
    found = live(engine, shelf)
    assert found is not None
    assert (found.values, found.champion_error) == (35, 1.0)
    assert found.error == pytest.approx(sum(range(20, 55)) / 35)


@pytest.mark.parametrize(("known", "action"), [(35, "withdraw"), (20, "wait")])
def test_a_wrong_challenger_is_taken_back_while_it_bakes(
    engine: sa.Engine, settings: Settings, shelf: Any, known: int, action: str
) -> None:
    shelf.aliases = lambda: {"insurance": {"champion": "1", "challenger": "2"}}
    answer(engine, settings, known)
    decision = pipeline.decide(
        shelf,
        family="insurance",
        rollout=ROLLOUT,
        champion="1",
        tried=Tried(requests=200),
        over=False,
        live=live(engine, shelf),
    )
    assert decision.action == action
    assert ("it is wrong: live mae" in decision.reason) == (action == "withdraw")
