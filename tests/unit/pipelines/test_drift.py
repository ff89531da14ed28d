"""Drift of what comes in and goes out, measured from the tables against a snapshot."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from raysys import db, families
from raysys.artifacts import Artifacts
from raysys.pipelines import drift as pipeline
from raysys.pipelines import snapshot as snapshots
from raysys.records import Drift, Snapshot
from raysys.settings import Policy, Settings
from raysys.sources.sample import weather
from raysys.store import examples, observations, predictions
from raysys.store.tables import WEATHER_COLUMNS
from tests.conftest import NOW
from tests.unit.families.test_insurance import people

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
POLICY = Policy()
INSURANCE, ATMOS = families.get("insurance"), families.get("atmos")


def log(engine: sa.Engine, family: str, said: Sequence[dict[str, Any]], version: str = "1") -> None:
    """Log predictions that the join has seen: `inputs`, `outputs`, `at` and perhaps `anchor`."""
    rest = {"family": family, "version": version, "latency_ms": 1.0, "row": 0, "key": None}
    rows = [
        {"id": uuid.uuid4().hex, "request_id": "r", "anchor": None, "truth": "waiting", **rest, **s}
        for s in said
    ]
    predictions.append_many(engine, rows)


# -- rows ------------------------------------------------------------------------------------------


@pytest.fixture
def charged(engine: sa.Engine, settings: Settings) -> Callable[..., dict[str, Drift]]:
    """A snapshot of 600 people, whose model says the age."""
    rows = people(600).to_dict("records")
    kept: Any = {"source": "t", "workflow_id": None, "now": NOW}
    examples.add(engine, family="insurance", rows=rows, **kept)
    artifacts = Artifacts(settings.artifact_root)
    taken = snapshots.take(engine, artifacts, INSURANCE, None, workflow_id=None, now=NOW)

    def measure(policy: Policy = POLICY) -> dict[str, Drift]:
        found = pipeline.measure(
            engine,
            artifacts,
            INSURANCE,
            taken,
            lambda x: x[:, :1],
            version="1",
            series=None,
            seed=1,
            policy=policy,
            now=NOW,
        )
        return {each.feature: each for each in found}

    return measure


def asked(rows: pd.DataFrame, days: int = 1, **changed: Any) -> list[dict[str, Any]]:
    """Return the people as logged requests, each day anew."""
    found = []
    for day in range(days):
        for row in rows.drop(columns="charges").to_dict("records"):
            inputs = {**row, **changed, "bmi": row["bmi"] + day / 100}
            at = NOW - day * DAY - HOUR
            found.append({"at": at, "inputs": inputs, "outputs": float(inputs["age"])})
    return found


def test_people_like_those_of_the_snapshot_are_no_drift(
    engine: sa.Engine, charged: Callable[..., dict[str, Drift]]
) -> None:
    log(engine, "insurance", asked(people(120, seed=5), days=5))
    found = charged()
    assert list(found) == [*INSURANCE.columns(), pipeline.OUTPUT]
    assert {each.kind for each in found.values()} == {"input", "output"}
    assert all(each.score is not None and each.score < 1 for each in found.values())
    assert all((each.live, each.lasted) == (600, 0) for each in found.values())


def test_older_people_are_seen_in_their_feature_and_in_the_answers(
    engine: sa.Engine, charged: Callable[..., dict[str, Drift]]
) -> None:
    rows = people(120, seed=5)
    rows["age"] += 15
    log(engine, "insurance", asked(rows, days=7))
    found = charged()
    drifted = {name for name, each in found.items() if (each.score or 0) > 1}
    assert drifted == {"age", pipeline.OUTPUT}
    assert found["age"].lasted == POLICY.drift_checks
    assert found["age"].distance == pytest.approx(
        10, abs=2
    )  # beyond the oldest tenth age is not told apart
    assert (found["age"].psi or 0) > 0.2
    assert (found["age"].ks or 0) > 0.2


def test_a_drift_of_today_has_lasted_one_day(
    engine: sa.Engine, charged: Callable[..., dict[str, Drift]]
) -> None:
    log(engine, "insurance", asked(people(60, seed=5), days=7))
    log(engine, "insurance", asked(people(600, seed=6), smoker="yes"))
    assert charged()["smoker"].lasted == 1


def test_one_body_sent_a_thousand_times_is_one(
    engine: sa.Engine, charged: Callable[..., dict[str, Drift]]
) -> None:
    log(engine, "insurance", asked(people(1)) * 1000)
    found = charged()["age"]
    assert (found.live, found.score) == (1, None)
    assert "50 are needed" in found.reason


def test_other_versions_answers_and_requests_of_old_releases_are_left_out(
    engine: sa.Engine, charged: Callable[..., dict[str, Drift]]
) -> None:
    log(engine, "insurance", asked(people(100, seed=5)), version="2")
    log(engine, "insurance", [{"at": NOW - HOUR, "inputs": {"old": 1}, "outputs": 1.0}])
    found = charged()
    assert found["age"].live == 100
    assert found[pipeline.OUTPUT].live == 1


# -- hours -----------------------------------------------------------------------------------------

DAYS = 400
SERIES = "sample-1"


def frame(end: datetime, days: int, raised: float = 0.0) -> pd.DataFrame:
    times = pd.date_range(end=end, periods=days * 24, freq="h", tz="UTC").as_unit("ns")
    hours = (times.asi8 // 3_600_000_000_000).astype(np.int64)
    columns = weather(hours, 7)
    columns["temperature"] = columns["temperature"] + raised
    return pd.DataFrame({"time": times, **{name: columns[name] for name in WEATHER_COLUMNS}})


def store(engine: sa.Engine, rows: pd.DataFrame) -> None:
    observations.store_window(
        engine,
        family="atmos",
        source="sample",
        series=SERIES,
        frame=rows,
        rejections=[],
        days=[],
        workflow_id=None,
        now=NOW,
    )


class Station:
    """A snapshot of hours up to eight days ago, and the hours since."""

    def __init__(self, engine: sa.Engine, artifacts: Artifacts, taken: Snapshot) -> None:
        self.engine, self.artifacts, self.taken = engine, artifacts, taken

    def measure(self) -> dict[str, Drift]:
        found = pipeline.measure(
            self.engine,
            self.artifacts,
            ATMOS,
            self.taken,
            lambda x: x[:, -24:],
            version="1",
            series=SERIES,
            seed=1,
            policy=POLICY,
            now=NOW,
        )
        return {each.feature: each for each in found}


@pytest.fixture(scope="module")
def trained(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Snapshot]:
    """A home whose database holds 400 days and their snapshot, to be copied."""
    home = tmp_path_factory.mktemp("trained")
    shutil.copy(migrated, home / "raysys.db")
    engine = db.open_engine(f"sqlite:///{home / 'raysys.db'}")
    store(engine, frame(NOW - 8 * DAY, DAYS))
    given: Any = {"workflow_id": None, "now": NOW}
    taken = snapshots.take(engine, Artifacts(str(home)), ATMOS, SERIES, **given)
    engine.dispose()
    return home, taken


@pytest.fixture
def station(trained: tuple[Path, Snapshot], tmp_path: Path) -> Iterator[Station]:
    home, taken = trained
    shutil.copy(home / "raysys.db", tmp_path / "raysys.db")
    engine = db.open_engine(f"sqlite:///{tmp_path / 'raysys.db'}")
    yield Station(engine, Artifacts(str(home)), taken)
    engine.dispose()


@pytest.mark.parametrize(("raised", "seen"), [(0.0, False), (4.0, True)])
def test_an_offset_is_seen_by_what_the_other_columns_say(
    station: Station, raised: float, seen: bool
) -> None:
    store(station.engine, frame(NOW - HOUR, 8, raised).iloc[1:])
    found = station.measure()
    relation = found["temperature_given_others"]
    assert ((relation.score or 0) > 1) == seen
    assert relation.lasted == (POLICY.drift_checks if seen else 0)
    assert relation.kind == "relation"
    assert found["temperature"].kind == "input"
    assert {each.kind for name, each in found.items() if name in WEATHER_COLUMNS[1:]} == {"context"}
    context = [each.score or 0 for each in found.values() if each.kind == "context"]
    assert max(context) < 1
    assert found["temperature"].live == POLICY.drift_days * 24


def test_forecasts_are_compared_hour_by_hour(station: Station) -> None:
    table = frame(NOW - HOUR, 8)
    values = table["temperature"].to_numpy()

    def said(raised: float, at: datetime = NOW - DAY) -> list[dict[str, Any]]:
        anchors = range(72, len(values) - 24, 3)
        return [
            {
                "at": at,
                "anchor": table["time"][place].to_pydatetime(),
                "inputs": [],
                "outputs": (values[place + 1 : place + 25] + raised).tolist(),
            }
            for place in anchors
        ]

    assert station.measure()[pipeline.OUTPUT].score is None
    log(station.engine, "atmos", said(0.0))
    assert (station.measure()[pipeline.OUTPUT].score or 9) < 1
    log(station.engine, "atmos", said(25.0, NOW - HOUR))
    assert (station.measure()[pipeline.OUTPUT].score or 0) > 1


def test_too_short_a_snapshot_tells_no_season_from_a_drift(station: Station) -> None:
    table = frame(NOW - 8 * DAY, 200)[["time", "temperature"]]
    station.artifacts.put("short.parquet", table.to_parquet())
    uri, digest = station.artifacts.uri("short.parquet"), snapshots.content_hash(table)
    station.taken = replace(station.taken, uri=uri, hash=digest)
    store(station.engine, frame(NOW - HOUR, 8, 30.0).iloc[1:])
    found = station.measure()
    assert all(each.score is None for each in found.values())
    assert "330 days" in found["temperature"].reason
