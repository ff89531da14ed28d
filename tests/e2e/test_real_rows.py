"""The main job on real rows, with a source that fails in every way it can, on both databases."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from raysys.laptop import processes
from raysys.store.tables import observations
from tests import kma
from tests.e2e.conftest import PYTHON, Home

FIRST, LAST = "2013-03-01", "2017-02-28"


@pytest.fixture(scope="module")
def station() -> Iterator[kma.KmaServer]:
    """Give a KMA of real hours that fails at every third request."""
    path = DATA / "hourly" / "beijing_aotizhongxin_2013_2017.csv"
    if not path.exists():
        pytest.skip(f"the real hours of {path} are not here")
    with kma.KmaServer(
        kma.read_station(path), faults=kma.transient, service_key="a+key/=="
    ) as server:
        yield server


DATA = Path(__file__).parents[3] / "shared" / "data"


# The demo runs on SQLite; the contract tests store the real years there, and those of models train on real rows.
@pytest.fixture(scope="module", params=[pytest.param("sqlite", marks=pytest.mark.slow), "postgres"])
def real(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, station: kma.KmaServer
) -> Iterator[Home]:
    """Give a running raysys that crawls the station."""
    environment = {
        "RAYSYS_ATMOS_SOURCE": "kma",
        "RAYSYS_KMA_BASE_URL": station.url,
        "RAYSYS_KMA_SERVICE_KEY": "a%2Bkey%2F%3D%3D",
        "RAYSYS_SOURCE_TIMEOUT_SECONDS": "1",
        "RAYSYS_SOURCE_BACKOFF_SECONDS": "0.05",
    }
    if request.param == "postgres":
        cluster = request.getfixturevalue("postgres_cluster")
        environment["RAYSYS_DATABASE_URL"] = cluster.create_database()
    home = Home(tmp_path_factory.mktemp(request.param), environment)
    try:
        home.run("up")
        yield home
    finally:
        home.run("down")
        assert processes.find(home.settings()) == []


def test_every_hour_of_a_failing_source_is_stored_once(real: Home, station: kma.KmaServer) -> None:
    report = real.json("crawl", "atmos", "--since", FIRST, "--until", LAST, "--wait")
    assert report["failed"] == []
    assert _stored(real) == _truth(station)
    asked = len(station.queries)
    again = real.json("crawl", "atmos", "--since", FIRST, "--until", LAST, "--wait")
    assert (again["new"], again["windows"]) == (0, 0)
    assert len(station.queries) == asked, "days that are complete were asked for again"


def test_real_insurance_rows_reach_the_expected_scores(real: Home) -> None:
    path = DATA / "insurance.csv"
    report = real.json("data", "import", "insurance", str(path))
    assert (report["new"], report["known"], report["rejected"]) == (1338, 0, [])
    assert real.json("data", "import", "insurance", str(path))["new"] == 0
    trained = real.json("train", "insurance", "--trials", "20", "--wait")
    assert trained["promoted"], trained["verdict"]
    assert trained["evaluation"]["scores"]["model"]["r2"] >= 0.84
    assert trained["search_metric"] <= 2800
    with path.open(newline="") as file:
        row = next(csv.DictReader(file))
    del row["charges"]
    body = {
        **row,
        "age": int(row["age"]),
        "children": int(row["children"]),
        "bmi": float(row["bmi"]),
    }
    answer = json.loads(real.run("predict", "insurance", json.dumps(body)))
    assert answer["model"]["version"] == trained["version"]
    assert answer["result"] == pytest.approx(_registered(real, body), abs=1e-3)


def test_real_weather_beats_persistence_by_a_tenth(real: Home) -> None:
    trained = real.json("train", "atmos", "--trials", "2", "--wait")
    scores = trained["evaluation"]["scores"]
    assert trained["promoted"], trained["verdict"]
    assert scores["model"]["mae"] <= 0.9 * scores["persistence"]["mae"]
    assert scores["persistence"]["mae"] == pytest.approx(2.31, abs=0.05)


def _stored(home: Home) -> dict[datetime, float | None]:
    engine = sa.create_engine(home.settings().database)
    try:
        with engine.connect() as connection:
            rows = connection.execute(
                sa.select(observations.c.time, observations.c.temperature)
            ).all()
    finally:
        engine.dispose()
    assert len(rows) == len({time for time, _ in rows})
    return dict(rows)  # type: ignore[arg-type]


def _truth(station: kma.KmaServer) -> dict[datetime, float | None]:
    return {
        hour.replace(tzinfo=kma.KST).astimezone(UTC): float(item["ta"]) if item["ta"] else None
        for hour, item in station.station.items()
    }


def _registered(home: Home, body: dict[str, object]) -> float:
    """Return the answer of `models:/insurance@champion`, loaded by MLflow as its users do."""
    code = (
        "import json, sys, mlflow, msgspec; from raysys import families;"
        "family = families.get('insurance');"
        "x = family.encode([msgspec.convert(json.loads(sys.argv[1]), family.request)]);"
        "model = mlflow.pyfunc.load_model('models:/insurance@champion');"
        "answer = model.predict(x); print(float(next(iter(answer.values())).ravel()[0]))"
    )
    environment = {
        **home.all_environment(),
        "MLFLOW_TRACKING_URI": home.settings().tracking_uri,
        "TMPDIR": str(home.path),  # MLflow leaves what it downloaded
    }
    done = subprocess.run(
        [PYTHON, "-c", code, json.dumps(body)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])
