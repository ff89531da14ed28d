"""What a policy decides, case by case, and what it must never do."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from raysys.pipelines.policy import Rival, State, decide
from raysys.records import Act, Drift, Promotion, QualityWindow
from raysys.settings import Policy
from tests.conftest import NOW

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
POLICY = Policy()


def window(error: float | None, baseline: float | None = 2.0, *, age: int = 0) -> QualityWindow:
    return QualityWindow(
        family="plants",
        version="2",
        since=NOW - (age + 1) * DAY,
        until=NOW - age * DAY,
        predictions=24,
        placed=24,
        wanted=576,
        values=0 if error is None else 576,
        error=error,
        baseline_error=baseline,
    )


def windows(*errors: float | None, baseline: float | None = 2.0) -> list[QualityWindow]:
    return [window(e, baseline, age=len(errors) - place - 1) for place, e in enumerate(errors)]


def surprised(*surprises: float) -> list[QualityWindow]:
    return [
        replace(each, surprise=surprise)
        for each, surprise in zip(windows(*[1.0] * len(surprises)), surprises, strict=True)
    ]


def drift(score: float | None, lasted: int = 0, kind: Any = "input") -> Drift:
    return Drift(feature="height", kind=kind, live=100, score=score, lasted=lasted)


def move(action: Any = "promote", days: float = 3) -> Promotion:
    return Promotion(
        id="m",
        family="plants",
        alias="champion",
        action=action,
        to_version="2",
        from_version="1",
        actor="by hand",
        reason="",
        at=NOW - days * DAY,
    )


def rivals(*errors: tuple[float, float], values: int = 100) -> list[Rival]:
    return [
        Rival(since=NOW - age * DAY, values=values, error=own, predecessor_error=other)
        for age, (own, other) in enumerate(errors)
    ]


def state(**fields: Any) -> State:
    known = {
        "family": "plants",
        "version": "2",
        "metric": "mae",
        "test_error": 1.0,
        "test_baseline_error": 2.0,
        "windows": windows(1.0, 1.1, 0.9, 1.0),
        "drifts": [drift(0.4), drift(0.5, kind="output")],
        "promotion": move(),
        "age_days": 3.0,
    }
    return State(**{**known, **fields})


def act(action: Any, *causes: str, ago: timedelta = DAY, **fields: Any) -> Act:
    known = {"id": f"{action}-{ago}", "family": "plants", "reason": ""}
    evidence = {"causes": list(causes), "version": "2"}
    return Act(**{**known, "at": NOW - ago, "action": action, "evidence": evidence, **fields})


def decided(of: State, *past: Act, policy: Policy = POLICY) -> Act | None:
    return decide(of, policy, past, id="d", now=NOW, workflow_id="w")


BAD = windows(1.0, 1.9, 1.8, 1.7)
LASTING = [drift(3.0, lasted=3)]

CASES: dict[str, tuple[State, tuple[Act, ...], str | None]] = {
    "all is well": (state(), (), None),
    "nothing is known yet": (
        State(family="plants", version="1", metric="mae"),
        (),
        None,
    ),
    # error
    "three of four windows are bad": (state(windows=BAD), (), "retrain"),
    "two of four are not enough": (state(windows=windows(1.0, 1.9, 1.0, 1.7)), (), None),
    "windows without truth do not count": (
        state(windows=windows(1.9, 1.8, None, 1.7, None)),
        (),
        "retrain",
    ),
    "windows before the last four do not count": (
        state(windows=windows(1.9, 1.9, 1.9, 1.0, 1.0, 1.0, 1.0)),
        (),
        None,
    ),
    "hours that are hard for the baseline too are not bad": (
        state(windows=windows(1.9, 1.9, 1.9, baseline=3.8)),
        (),
        None,
    ),
    "easy hours do not make a small error bad": (
        state(windows=windows(1.2, 1.2, 1.2, baseline=0.5)),
        (),
        None,
    ),
    "without a test error the baseline is what to beat": (
        state(test_error=None, windows=windows(2.1, 2.1, 2.1)),
        (),
        "retrain",
    ),
    "without either nothing is said": (
        state(test_error=None, windows=windows(9.0, 9.0, 9.0, baseline=None)),
        (),
        None,
    ),
    "one window far above is told": (
        state(windows=windows(1.0, 1.0, 2.4, baseline=4.8)),
        (),
        "alert",
    ),
    "one value off as none in the test was is told": (
        state(windows=surprised(0.9, 1.8, 0.7)),
        (),
        "alert",
    ),
    "one hardly off by more than in the test is not": (
        state(windows=surprised(0.9, 1.3, 0.7)),
        (),
        None,
    ),
    "a jump is over when no window that is looked at has it": (
        state(windows=surprised(1.8, 0.9, 1.0, 0.7, 0.8)),
        (act("alert", "jump", ago=3 * DAY),),
        "recover",
    ),
    # drift
    "a drift that lasts": (state(drifts=LASTING), (), "retrain"),
    "a relation that lasts broken": (
        state(drifts=[drift(2.0, 3, "relation"), drift(0.2)]),
        (),
        "retrain",
    ),
    "a drift of yesterday may pass": (state(drifts=[drift(3.0, lasted=2)]), (), None),
    "other columns are nobody's business": (state(drifts=[drift(9, 9, "context")]), (), None),
    "answers that drift are told": (state(drifts=[drift(3.0, 3, "output")]), (), "alert"),
    # age and rows
    "old rows": (state(age_days=91.0), (), "retrain"),
    "many new rows": (state(new_share=0.6), (), "retrain"),
    # what forbids a training
    "nothing new to learn": (state(drifts=LASTING, nothing_new="no rows"), (), "alert"),
    "a training began just now": (
        state(drifts=LASTING, trained_at=NOW - 2 * HOUR),
        (),
        "alert",
    ),
    "a training began yesterday": (
        state(drifts=LASTING, trained_at=NOW - 25 * HOUR),
        (),
        "retrain",
    ),
    "the budget is used up": (
        state(windows=BAD),
        (act("retrain", "drift", ago=23 * HOUR),),
        "alert",
    ),
    # hysteresis
    "a drift that was acted on is left alone": (
        state(drifts=LASTING),
        (act("retrain", "drift", ago=3 * DAY),),
        None,
    ),
    "a drift that was told is acted on when it may be": (
        state(drifts=LASTING),
        (act("alert", "drift", ago=2 * DAY),),
        "retrain",
    ),
    "a drift that was told is not told again": (
        state(drifts=LASTING, nothing_new="no rows"),
        (act("alert", "drift", ago=2 * DAY),),
        None,
    ),
    "a drift that a training did not end in a week": (
        state(drifts=LASTING),
        (act("retrain", "drift", ago=8 * DAY),),
        "retrain",
    ),
    "a drift that is over": (
        state(drifts=[drift(0.7)]),
        (act("retrain", "drift", ago=3 * DAY),),
        "recover",
    ),
    "a drift just below the threshold is not over": (
        state(drifts=[drift(0.9)]),
        (act("retrain", "drift", ago=3 * DAY),),
        None,
    ),
    "a drift that is unknown is not over": (
        state(drifts=[drift(None)]),
        (act("retrain", "drift", ago=3 * DAY),),
        None,
    ),
    "a drift that comes again": (
        state(drifts=LASTING),
        (act("recover", "drift", ago=2 * DAY), act("retrain", "drift", ago=3 * DAY)),
        "retrain",
    ),
    "a new version must show windows before the error is over": (
        state(windows=windows(1.0, 1.0)),
        (act("retrain", "error", ago=3 * DAY),),
        None,
    ),
    "good windows end it": (state(), (act("retrain", "error", ago=3 * DAY),), "recover"),
    # rollback
    "a champion worse than its predecessor in three windows": (
        state(rivals=rivals((1.3, 1.0), (1.2, 1.0), (1.4, 1.0))),
        (),
        "rollback",
    ),
    "in two windows only": (state(rivals=rivals((1.3, 1.0), (1.2, 1.0), (1.0, 1.0))), (), None),
    "worse by less than the margin": (
        state(rivals=rivals((1.05, 1.0), (1.05, 1.0), (1.05, 1.0))),
        (),
        None,
    ),
    "twice as bad at once": (state(rivals=rivals((2.1, 1.0))), (), "rollback"),
    "twice as bad on too few values": (state(rivals=rivals((9.0, 1.0), values=20)), (), None),
    "a rollback goes before a training": (
        state(rivals=rivals((2.1, 1.0)), windows=BAD),
        (),
        "rollback",
    ),
    "a rollback is not rolled back": (
        state(rivals=rivals((9.0, 1.0)), promotion=move("rollback")),
        (),
        None,
    ),
    "a promotion of long ago stays": (
        state(rivals=rivals((9.0, 1.0)), promotion=move(days=15)),
        (),
        None,
    ),
    "a first champion has nothing to go back to": (
        state(rivals=[], promotion=replace(move(), from_version=None)),
        (),
        None,
    ),
    "a rollback that was decided is not decided again": (
        state(rivals=rivals((9.0, 1.0))),
        (act("rollback", ago=HOUR),),
        None,
    ),
}


@pytest.mark.parametrize(("of", "past", "action"), CASES.values(), ids=CASES.keys())
def test_what_follows(of: State, past: tuple[Act, ...], action: str | None) -> None:
    found = decided(of, *past)
    assert (found.action if found else None) == action


def test_the_reason_and_the_evidence_say_why() -> None:
    found = decided(state(windows=BAD, drifts=LASTING, unit="kg"))
    assert found is not None
    assert "3 of the last 4 windows are bad: mae 1, 1.9, 1.8, 1.7 (in its test 1)" in found.reason
    assert "height is at 3 times its threshold" in found.reason
    assert found.evidence["causes"] == ["error", "drift"]
    assert (found.evidence["version"], found.workflow_id, found.at) == ("2", "w", NOW)
    back = decided(state(rivals=rivals((2.5, 1.0)), unit="kg"))
    assert back is not None
    assert "a live mae of 2.5 kg, its predecessor 1 would have had 1 on the same 100" in back.reason


def test_an_alert_says_what_forbids_the_training() -> None:
    told = decided(state(drifts=LASTING, nothing_new="plants has no rows that were not used"))
    assert told is not None
    assert "(no training: plants has no rows that were not used)" in told.reason
    budget = decided(state(drifts=LASTING), policy=Policy(daily_budget=0))
    assert budget is not None
    assert (budget.action, "the budget of 0 a day" in budget.reason) == ("alert", True)


def test_a_dry_run_decides_the_same_and_remembers_dry_acts_only() -> None:
    dry = Policy(dry_run=True)
    found = decided(state(drifts=LASTING), act("retrain", "drift", ago=2 * DAY), policy=dry)
    assert found is not None
    assert (found.action, found.dry_run) == ("retrain", True)
    assert decided(state(drifts=LASTING), replace(found, at=NOW - 2 * DAY), policy=dry) is None
    wet = decided(state(drifts=LASTING), replace(found, at=NOW - HOUR))
    assert wet is not None
    assert not wet.dry_run


ERRORS = st.lists(st.one_of(st.none(), st.floats(0.01, 20)), max_size=8)
SCORES = st.one_of(st.none(), st.floats(0, 20))


@settings(max_examples=60, deadline=None)
@given(
    hourly=st.lists(st.tuples(ERRORS, SCORES, st.integers(0, 3)), min_size=1, max_size=60),
    budget=st.integers(0, 3),
    cooldown=st.floats(0, 48),
    patience=st.floats(0, 10),
)
def test_no_history_breaks_budget_or_cooldown(
    hourly: list[tuple[list[float | None], float | None, int]],
    budget: int,
    cooldown: float,
    patience: float,
) -> None:
    policy = Policy(daily_budget=budget, cooldown_hours=cooldown, patience_days=patience)
    past: list[Act] = []
    for hour, (errors, score, lasted) in enumerate(hourly):
        now = NOW + 6 * hour * HOUR
        of = state(windows=windows(*errors), drifts=[drift(score, lasted)])
        found = decide(of, policy, past, id=str(hour), now=now)
        past = [found, *past] if found else past
    started = sorted(each.at for each in past if each.action == "retrain")
    for first, second in pairwise(started):
        assert second - first >= cooldown * HOUR
    for at in started:
        assert sum(at - DAY < other <= at for other in started) <= budget


def _replayed(score: float | None, lasted: int, days: int) -> list[Act]:
    past: list[Act] = []
    for hour in range(24 * days):
        now: datetime = NOW + hour * HOUR
        of = state(drifts=[drift(score, lasted)])
        found = decide(of, POLICY, past, id=str(hour), now=now)
        past = [found, *past] if found else past
    return past


def test_a_lasting_drift_starts_one_training_a_patience() -> None:
    assert [each.action for each in _replayed(3.0, 3, days=6)] == ["retrain"]
    assert [each.action for each in _replayed(3.0, 3, days=8)] == ["retrain", "retrain"]
    assert _replayed(0.5, 0, days=8) == []
