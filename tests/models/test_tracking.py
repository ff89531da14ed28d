"""Runs and trials on a real MLflow server: ids made once, trials nested, nothing global."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from raysys.errors import Conflict, NotFound, Unavailable
from raysys.tracking import Tracking
from tests.postgres import free_port


@pytest.fixture
def tracking(mlflow_url: str) -> Tracking:
    return Tracking(mlflow_url)


@pytest.fixture
def run_id(tracking: Tracking) -> str:
    return tracking.open_run("tests", uuid.uuid4().hex)


def client(tracking: Tracking):  # type: ignore[no-untyped-def]
    from mlflow import MlflowClient

    return MlflowClient(tracking.tracking_uri)


def test_run_of_a_workflow_is_made_once(tracking: Tracking) -> None:
    workflow_id = uuid.uuid4().hex
    first = tracking.open_run("tests", workflow_id, {"raysys.snapshot": "abc"})
    assert Tracking(tracking.tracking_uri).open_run("tests", workflow_id) == first
    tags = client(tracking).get_run(first).data.tags
    assert tags["mlflow.runName"] == f"tests-{workflow_id}"
    assert tags["raysys.snapshot"] == "abc"


def test_trials_are_nested_under_their_study(tracking: Tracking, run_id: str) -> None:
    trial = tracking.open_trial(run_id, "t1", {"depth": 3})
    tracking.log_metrics(trial, {"mae": 2.0}, step=1)
    tracking.log_metrics(trial, {"mae": 1.0}, step=2)
    tracking.close_run(trial)
    run = client(tracking).get_run(trial)
    assert run.data.tags["mlflow.parentRunId"] == run_id
    assert run.data.params == {"depth": "3"}
    assert run.info.status == "FINISHED"
    history = client(tracking).get_metric_history(trial, "mae")
    assert [(metric.step, metric.value) for metric in history] == [(1, 2.0), (2, 1.0)]


def test_trial_is_found_again_by_another_process(tracking: Tracking, run_id: str) -> None:
    trial = tracking.open_trial(run_id, "t1", {"depth": 3})
    other = Tracking(tracking.tracking_uri)
    assert other.open_trial(run_id, "t1", {"depth": 3}) == trial
    assert other.trials(run_id) == {"t1": trial}


def test_changed_parameter_is_a_conflict(tracking: Tracking, run_id: str) -> None:
    tracking.log_params(run_id, {"seed": 1})
    tracking.log_params(run_id, {"seed": 1})
    with pytest.raises(Conflict, match="seed"):
        tracking.log_params(run_id, {"seed": 2})


def test_unknown_run_is_not_found(tracking: Tracking) -> None:
    with pytest.raises(NotFound):
        tracking.log_params("nothing", {"seed": 1})


def test_figures_and_data_become_artifacts(tracking: Tracking, run_id: str, tmp_path: Path) -> None:
    from raysys.families import figures

    tracking.log_figures(run_id, {"bars": figures.bars({"a": 1.0, "b": 2.0}, title="t")})
    tracking.log_json(run_id, "facts", {"seed": 1})
    paths = client(tracking).download_artifacts(run_id, "", str(tmp_path))
    assert (Path(paths) / "figures" / "bars.png").stat().st_size > 1000
    assert '"seed": 1' in (Path(paths) / "facts.json").read_text()


def test_server_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Unavailable, match="does not answer"):
        Tracking(f"http://127.0.0.1:{free_port()}").open_run("tests", "one")
