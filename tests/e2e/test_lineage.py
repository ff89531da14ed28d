"""What the demo served is traced back to its rows, and meets its truth, as a user would do it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from raysys import db, families
from raysys.records import TrainReport, revive
from raysys.sources import series_name
from raysys.store import observations
from tests.e2e.conftest import Home

# Of a busy hour's requests only a share is joined with crawled truth: others of these tests are such an hour.
pytestmark = pytest.mark.early

HOUR = timedelta(hours=1)
PERSON = families.get("insurance").example


@pytest.fixture(scope="module")
def engine(home: Home) -> Iterator[sa.Engine]:
    engine = db.open_engine(home.settings().database)
    yield engine
    engine.dispose()


def ask(home: Home, family: str, body: Any, **query: str) -> tuple[Any, str]:
    """Return the answer and the id of the request, once it is logged."""
    path, id = f"/predict/{families.get(family).route}", f"lineage-{uuid.uuid4()}"
    with home.client() as client:
        answer = client.put(path, json=body, params=query, headers={"x-request-id": id})
        assert answer.status_code == 200, answer.text
    home.wait_until_logged(id)
    return answer.json(), id


def trained(home: Home, family: str) -> dict[str, TrainReport]:
    """Return what each training of the family reported, by its run."""
    runs = home.json("runs", "list", "--name", "train", "--limit", "1000")
    return {
        run["id"]: revive(run["output"], TrainReport)
        for run in runs
        if run["family"] == family and run["status"] == "SUCCESSFUL"
    }


@pytest.mark.parametrize("family", families.names())
def test_a_served_prediction_leads_to_the_snapshot_whose_rows_are_still_there(
    home: Home, family: str
) -> None:
    answer, id = ask(home, family, families.get(family).example)
    found = home.json("lineage", id)
    report = trained(home, family)[found["workflow_id"]]
    assert found["version"] == answer["model"]["version"] == report.version
    assert found["run_id"] == report.run_id
    assert found["snapshot"]["hash"] == report.snapshot == found["recomputed"]
    assert found["same"] is True
    assert sum(origin["rows"] for origin in found["origins"]) > 0
    assert home.json("lineage", f"{family}/{report.version}")["recomputed"] == report.snapshot
    if found["series"]:
        crawls = {run["id"] for run in home.json("runs", "list", "--name", "crawl")}
        assert {origin["workflow_id"] for origin in found["origins"]} <= crawls


def test_a_forecast_finds_the_hours_that_followed_it(home: Home, engine: sa.Engine) -> None:
    rows = observations.read(engine, series_name(home.settings())).dropna(subset=["temperature"])
    rows = rows[rows["time"] > rows["time"].iloc[-1] - timedelta(days=12)].reset_index(drop=True)
    runs = (rows["time"].diff() != HOUR).cumsum()
    whole = rows[runs == runs.mode()[0]]  # the longest piece without a hole
    history, truth = whole["temperature"].iloc[:72], whole["temperature"].iloc[72:96]
    assert len(truth) == 24
    answer, id = ask(home, "atmos", history.tolist())
    report = home.json("quality", "atmos", "--join")
    version = next(v for v in report["versions"] if v["version"] == answer["model"]["version"])
    assert version["overall"]["values"] >= 24
    assert version["overall"]["error"] > 0
    assert version["overall"]["baseline_error"] > 0
    assert version["test_error"] > 0
    told = home.json("lineage", id)
    from raysys.store import truths

    known = truths.values(engine, [told["prediction_id"]])[told["prediction_id"]]
    assert [known[place] for place in range(24)] == truth.tolist()
    if version["overall"]["values"] == 24:  # nothing else was asked that truth followed
        expected = np.mean(np.abs(np.array(answer["result"]) - truth.to_numpy()))
        assert version["overall"]["error"] == pytest.approx(expected, abs=1e-6)


def test_feedback_over_http_becomes_live_error(home: Home) -> None:
    answer, id = ask(home, "insurance", PERSON)
    with home.client() as client:
        for new in (1, 0):
            said = {"request_id": id, "value": answer["result"] + 500}
            kept = client.post("/feedback/insurance", json=said)
            assert (kept.status_code, kept.json()["new"]) == (202, new)
        assert client.post("/feedback/insurance", json={"value": 1}).status_code == 422
    report = home.json("quality", "insurance", "--join")
    version = next(v for v in report["versions"] if v["version"] == answer["model"]["version"])
    assert version["overall"]["values"] == 1
    assert version["overall"]["error"] == pytest.approx(500, abs=1e-3)
    assert version["overall"]["baseline_error"] > 0
