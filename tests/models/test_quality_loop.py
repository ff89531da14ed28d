"""The closed loop in fast-forward: a simulated station, forecasts, their truth, and what the policy makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from raysys import db
from raysys.pipelines import quality
from raysys.records import Act
from raysys.settings import Settings
from raysys.store import decisions, promotions
from tests.world import DAY, HOUR, World, shift

START = datetime(2025, 3, 1, tzinfo=UTC)
WEEK = 7 * DAY
TRUTH_LAG = 3 * DAY  # a forecast is for a day, and yesterday's hours are published today
slow = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """A station with two years of crawled history, and a champion trained on it."""
    settings = Settings(home=tmp_path, atmos_station=request.param)
    db.migrate(settings)
    engine: sa.Engine = db.open_engine(settings.database)
    opened = World(engine, settings, START)
    opened.crawl()
    opened.promote(opened.train().version, "the first")
    yield opened
    engine.dispose()


@pytest.mark.parametrize(
    "world", ["108", *(pytest.param(s, marks=slow) for s in ("112", "156", "90"))], indirect=True
)
def test_eight_weeks_without_change_train_nothing(world: World) -> None:
    days = world.pass_days(56)
    assert not {"retrain", "rollback"} & set(world.acts())
    assert len(world.acts()) <= 4  # a front that nobody foresaw may be told, and that it is over
    assert max(day.level("drift_score") for day in days) < 1
    assert max(day.level("prediction_drift_score") for day in days) < 1

    found = quality.windows(
        world.engine, world.family, version="1", since=START, until=world.now, step=56 * DAY
    )
    assert found[0].values > 56 * 24 * 24 * 0.8
    assert found[0].error == pytest.approx(world.mean_error(START, world.now), abs=1e-6)
    for window in days[-1].state.windows:
        again = world.mean_error(window.since, window.until)
        assert window.error == pytest.approx(again, abs=1e-6)


@pytest.mark.parametrize(
    ("world", "hour", "told"),
    # The jump is two forecasts errors high: whether a window shows it depends on the weather of that day.
    [("159", 11, True), pytest.param("143", 3, False, marks=slow)],
    indirect=["world"],
)
def test_a_new_offset_of_the_sensor_is_seen_and_trained_once(
    world: World, monkeypatch: pytest.MonkeyPatch, hour: int, told: bool
) -> None:
    changed = START + 4 * WEEK + hour * HOUR
    shift(monkeypatch.setattr, changed, 4.0)
    world.pass_days(28)
    assert world.acts() == []
    days = world.pass_days(38)

    retrains = [day for day in days if day.act is not None and day.act.action == "retrain"]
    assert len(retrains) == 1
    (retrain,) = retrains
    assert changed + 2 * DAY < retrain.at < changed + 6 * DAY
    assert retrain.act is not None
    assert retrain.act.evidence["causes"] == ["drift"]
    assert retrain.level("drift_score") > 1
    assert ("alert" in world.acts()) == told
    assert world.acts()[-1] == "recover"

    former = world.mean_error(START, changed - DAY)
    later = world.mean_error(retrain.at + DAY, world.now - TRUTH_LAG)
    assert later == pytest.approx(former, rel=0.1)
    assert days[-1].level("drift_score") < 1


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
