"""The admin routes over real databases, without a worker and without MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from raysys import db, durable
from raysys.pipelines import truth
from raysys.records import Feedback
from raysys.store import feedback, predictions
from tests.unit.deployments.conftest import Served

TOKEN = {"authorization": "Bearer secret"}
PREDICTION: dict[str, Any] = {
    "id": "p",
    "request_id": "r",
    "key": "k",
    "family": "waves",
    "version": "1",
    "at": datetime.now(UTC),
    "latency_ms": 1.0,
    "inputs": [1, 2, 3, 4],
    "outputs": [2.0, 4.0, 6.0, 8.0],
}


@pytest.fixture
def admin(waves: Served) -> Iterator[Served]:
    """The gateway of one family over migrated databases."""
    db.migrate(waves.office.settings)
    durable.migrate(waves.office.settings)
    yield waves
    waves.office.close()


def call(served: Served, method: str, path: str, body: Any = None) -> httpx.Response:
    content = {} if body is None else {"json": body}
    return served.through_gateway(method, f"/admin/{path}", headers=TOKEN, **content)


def test_a_run_is_started_shown_cancelled_and_forgotten(admin: Served) -> None:
    started = call(admin, "POST", "train/waves", {"trials": 3})
    assert started.status_code == 202
    run = started.json()["id"]
    assert [each["id"] for each in call(admin, "GET", "runs?name=train").json()] == [run]
    shown = call(admin, "GET", f"runs/{run}").json()
    assert (shown["run"]["name"], shown["run"]["args"]) == ("train", ["waves", 3])
    assert shown["steps"] == []
    assert call(admin, "POST", f"runs/{run}/cancel").json()["status"] == "CANCELED"
    assert call(admin, "DELETE", f"runs/{run}").status_code == 204
    assert call(admin, "GET", f"runs/{run}").status_code == 404


def test_a_crawl_takes_days_and_the_familys_route(admin: Served) -> None:
    days = {"since": "2026-01-01", "until": "2026-01-31"}
    run = call(admin, "POST", "crawl/waves_next", days).json()["id"]
    shown = call(admin, "GET", f"runs/{run}").json()["run"]
    assert shown["args"] == ["waves", "2026-01-01", "2026-01-31"]


def test_without_an_order_the_defaults_hold(admin: Served) -> None:
    run = call(admin, "POST", "train/waves").json()["id"]
    assert call(admin, "GET", f"runs/{run}").json()["run"]["args"] == ["waves", None]


BACKFILL = {"since": "2026-01-01T00:00:00", "until": "2026-01-02T00:00:00Z"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "runs/nothing", None),
        ("POST", "runs/nothing/cancel", None),
        ("POST", "runs/nothing/resume", None),
        ("POST", "runs/nothing/fork", {"step": 1}),
        ("DELETE", "runs/nothing", None),
        ("POST", "schedules/nothing/pause", None),
        ("POST", "schedules/nothing/trigger", None),
        ("POST", "schedules/nothing/backfill", BACKFILL),
        ("GET", "models/nothing", None),
        ("POST", "models/nothing/promote", {"version": "1"}),
    ],
)
def test_what_does_not_exist_is_404(admin: Served, method: str, path: str, body: Any) -> None:
    answer = call(admin, method, path, body)
    assert answer.status_code == 404, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_lists_are_empty_at_first(admin: Served) -> None:
    for path in ("runs", "schedules", "models/waves/history"):
        assert call(admin, "GET", path).json() == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "models", None),
        ("GET", "models/waves", None),
        ("POST", "models/waves/promote", {"version": "1"}),
        ("POST", "models/waves/rollback", None),
    ],
)
def test_without_mlflow_models_are_503(admin: Served, method: str, path: str, body: Any) -> None:
    answer = call(admin, method, path, body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "MLflow" in answer.json()["detail"]


def test_databases_that_were_never_made_are_503(waves: Served) -> None:
    for path in ("runs", "schedules", "models/waves/history"):
        answer = call(waves, "GET", path)
        assert answer.status_code == 503, answer.text
    waves.office.close()


def test_quality_is_that_of_the_last_hourly_run_or_as_of_now(
    admin: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raysys.pipelines import quality
    from raysys.records import QualityReport

    monkeypatch.setattr(admin.office.registry, "versions", lambda family: [])
    predictions.append_many(admin.office.engine, [PREDICTION])
    feedback.add(
        admin.office.engine,
        "waves",
        [Feedback(key="k", values=[2.0, 4.0, 6.0, 9.0])],
        source="test",
        now=PREDICTION["at"],
    )
    truth.join(admin.office.engine, admin.family, admin.office.settings, now=PREDICTION["at"])
    for path in ("quality/waves_next", "quality/waves?live=true"):
        told = call(admin, "GET", path).json()
        assert [v["version"] for v in told["versions"]] == ["1"]
        [window] = told["versions"][0]["windows"]
        assert (window["error"], window["values"], window["baseline_error"]) == (0.25, 4, None)
    kept = QualityReport(family="waves", metric="mae", unit="", at=PREDICTION["at"])
    quality.publish(admin.office.artifacts, kept)
    assert call(admin, "GET", "quality/waves").json()["versions"] == []
    assert call(admin, "GET", "quality/waves?live=true").json()["versions"] != []
    assert call(admin, "GET", "quality/nobody").status_code == 404
