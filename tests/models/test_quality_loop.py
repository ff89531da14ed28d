"""The closed loop in fast-forward: a simulated station, forecasts, their truth, and what the policy makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
import sqlalchemy as sa

from raysys import db
from raysys.pipelines import quality
from raysys.records import Act
from raysys.settings import Settings
from raysys.store import decisions, promotions
from tests.world import DAY, HOUR, Day, World, beside_a_machine, shift

START = datetime(2025, 3, 1, tzinfo=UTC)
WEEK = 7 * DAY
TRUTH_LAG = 3 * DAY  # a forecast is for a day, and yesterday's hours are published today
slow = pytest.mark.slow


def acts_on(days: list[Day], cause: str) -> list[Act]:
    """Return what was decided for a cause, oldest first."""
    acts = [day.act for day in days if day.act is not None]
    return [act for act in acts if cause in act.evidence["causes"]]


@contextmanager
def opened(home: Path, station: str, history_days: int = 730) -> Iterator[World]:
    """Yield a station with a crawled history, and a champion trained on it."""
    settings = Settings(home=home, atmos_station=station, atmos_history_days=history_days)
    db.migrate(settings)
    engine: sa.Engine = db.open_engine(settings.database)
    world = World(engine, settings, START)
    world.crawl()
    world.promote(world.train().version, "the first")
    yield world
    engine.dispose()


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """A station with two years of crawled history, and a champion trained on it."""
    with opened(tmp_path, request.param) as world:
        yield world


@pytest.mark.parametrize(
    "world",
    # Stations by rule, not by choice.
    ["200", *(pytest.param(str(station), marks=slow) for station in range(201, 206))],
    indirect=True,
)
def test_eight_weeks_without_change_train_nothing(world: World) -> None:
    days = world.pass_days(56)
    assert not {"retrain", "rollback"} & set(world.acts())
    assert world.acts().count("alert") <= 2  # a front that nobody foresaw may be told
    assert not acts_on(days, "jump")
    assert max(day.level("drift_score") for day in days) < 1
    assert max(day.level("prediction_drift_score") for day in days) < 1

    found = quality.windows(
        world.engine, world.family, version="1", since=START, until=world.now, step=56 * DAY
    )
    # What was asked within three days of an outage cannot be placed: the station lacks the hours of the input.
    assert found[0].values > found[0].placed * 24 * 0.9 > 56 * 24 * 24 * 0.6
    assert found[0].error == pytest.approx(world.mean_error(START, world.now), abs=1e-6)
    for window in days[-1].state.windows:
        again = world.mean_error(window.since, window.until)
        assert window.error == pytest.approx(again, abs=1e-6)


@pytest.mark.parametrize(
    ("station", "hour", "weeks"),
    # Stations by rule, not by choice, and jumps at all times of the day.
    [("200", 0, 3), *(pytest.param(str(200 + n), 7 * n, 6, marks=slow) for n in range(4))],
)
def test_a_new_offset_of_the_sensor_is_seen_and_trained_until_the_gate_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, station: str, hour: int, weeks: int
) -> None:
    changed = START + WEEK + hour * HOUR
    with opened(tmp_path / "as it was", station) as twin:
        twin.only_ask(7 * (1 + weeks))
    shift(monkeypatch.setattr, changed, 4.0)
    with opened(tmp_path / "changed", station) as world:
        world.pass_days(7)
        assert world.acts() == []
        days = world.pass_days(7 * weeks)

        told, over = acts_on(days, "jump")
        assert (told.action, over.action) == ("alert", "recover")
        assert changed < told.at < changed + 4 * DAY

        *trained, over = acts_on(days, "drift")
        assert over.action == "recover"
        assert {each.action for each in trained} == {"retrain"}
        assert changed + 2 * DAY < trained[0].at < changed + 6 * DAY
        # The old model is as good on the hours before the change, so the gate may refuse the new one by a hair.
        assert [verdict.passed for verdict in world.verdicts] == [False] * (len(trained) - 1) + [
            True
        ]
        patience = world.where.policy.patience_days * DAY
        assert all(later.at - sooner.at >= patience for sooner, later in pairwise(trained))
        assert days[-1].level("drift_score") < 1

        # The same weather at the same hours, without the change: no other week is as easy or as hard.
        since, until = trained[0].at + DAY, world.now - TRUTH_LAG
        former = twin.mean_error(since, until)
        assert world.mean_error(since, until) == pytest.approx(former, rel=0.1)


@slow
@pytest.mark.parametrize("station", ["200", "201", "202", "203"])
def test_where_only_a_training_helps_the_loop_trains_until_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, station: str
) -> None:
    changed, days = START + 4 * DAY, 42
    with opened(tmp_path / "as it was", station, history_days=60) as twin:
        twin.only_ask(days)
    shift(monkeypatch.setattr, changed, beside_a_machine)
    with opened(tmp_path / "left alone", station, history_days=60) as alone:
        alone.only_ask(days)
    with opened(tmp_path / "in the loop", station, history_days=60) as world:
        world.pass_days(days)

    trained = acts_on(world.days, "error")
    assert "retrain" in {each.action for each in trained}
    assert trained[0].at < changed + 8 * DAY
    assert len(world.verdicts) <= 4  # at most one in a week
    last = promotions.history(world.engine, world.family.name)[0].at
    since, until = last + DAY, world.now - TRUTH_LAG
    former = twin.mean_error(since, until)
    assert alone.mean_error(since, until) > 1.5 * former
    assert world.mean_error(since, until) == pytest.approx(former, rel=0.1)


def wait_for_an_act(world: World) -> Act:
    """Let days pass until something is decided."""
    for _ in range(5):
        (day,) = world.pass_days(1)
        if day.act is not None:
            return day.act
    raise AssertionError("nothing was decided in five days")


@pytest.mark.parametrize("world", ["108"], indirect=True)
def test_a_bad_model_promoted_by_hand_is_rolled_back(world: World) -> None:
    world.pass_days(4)
    bad = world.train(wrong_by=6.0)
    world.promote(bad.version, "it looked so good")
    act = wait_for_an_act(world)
    move, by_hand, first = promotions.history(world.engine, world.family.name)
    assert (move.action, move.from_version, move.to_version) == ("rollback", bad.version, "1")
    assert (by_hand.to_version, first.to_version) == (bad.version, "1")
    assert (act.action, act.reason) == ("rollback", move.reason)
    assert f"version {bad.version} has a live mae of" in move.reason
    assert act.evidence["error"] > 2 * act.evidence["predecessor_error"]
    for window in act.evidence["windows"]:
        since = datetime.fromisoformat(window["since"])
        assert window["error"] == pytest.approx(world.mean_error(since, since + DAY), abs=1e-6)
    world.pass_days(3)
    assert decisions.history(world.engine, world.family.name) == [act]


@pytest.mark.parametrize("world", ["108"], indirect=True)
def test_a_dry_run_decides_and_does_nothing(world: World, tmp_path: Path) -> None:
    policy = {"all": {"dry_run": True}}
    world.settings = Settings(home=tmp_path, atmos_station="108", policy=policy)
    bad = world.train(wrong_by=6.0)
    world.promote(bad.version, "it looked so good")
    act = wait_for_an_act(world)
    assert (act.action, act.dry_run) == ("rollback", True)
    champion = world.shelf.champion(world.family.name)
    assert champion is not None
    assert champion.version == bad.version
