"""The search on a real cluster and a real MLflow server: nested runs, failures, restoring."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import ray
from studies import drive

from raysys.artifacts import Artifacts
from raysys.errors import WorkflowError
from raysys.families.insurance import Insurance
from raysys.pipelines.snapshot import content_hash
from raysys.records import Snapshot
from raysys.settings import Settings
from raysys.tracking import Tracking
from tests.unit.families.test_insurance import people

pytestmark = pytest.mark.filterwarnings("default")  # what Ray Tune and MLflow warn of themselves


@pytest.fixture(scope="module")
def taken(cluster: Settings, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    table, _ = Insurance().prepare(people(120))
    file = tmp_path_factory.mktemp("snapshot") / "table.parquet"
    table.to_parquet(file)
    uri = Artifacts(cluster.artifact_root).put("snapshots/test.parquet", file.read_bytes())
    return Snapshot(hash=content_hash(table), family="insurance", uri=uri, rows=len(table))


@pytest.fixture
def workflow_id() -> str:
    return f"wf-{uuid.uuid4().hex[:8]}"


def runs(url: str, workflow_id: str) -> list[Any]:
    """Return MLflow's own view of the trials of a workflow."""
    from mlflow import MlflowClient

    parent = Tracking(url).open_run("insurance", workflow_id)
    client = MlflowClient(url)
    experiment = client.get_run(parent).info.experiment_id
    return list(client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'"))


def test_every_trial_is_a_nested_run_and_the_best_one_wins(
    taken: Snapshot, workflow_id: str, mlflow_url: str
) -> None:
    study, heard = ray.get(drive.remote(taken, workflow_id, mlflow_url, 4))
    assert len(study.trials) == 4
    assert study.best.metric == min(trial.metric for trial in study.trials)
    assert Insurance().candidates()[0] in [trial.config for trial in study.trials]
    assert sorted(done for done, _, _ in heard) == [1, 2, 3, 4]
    logged = {run.info.run_id: run for run in runs(mlflow_url, workflow_id)}
    assert logged.keys() == {trial.run_id for trial in study.trials}
    for trial in study.trials:
        run = logged[trial.run_id]
        assert run.info.status == "FINISHED"
        assert run.data.metrics["mae"] == pytest.approx(trial.metric)
        assert run.data.params == {key: str(value) for key, value in trial.config.items()}


def test_interrupted_study_goes_on_from_its_finished_trials(
    taken: Snapshot, workflow_id: str, mlflow_url: str
) -> None:
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(drive.remote(taken, workflow_id, mlflow_url, 8, die_after=5))
    before = {run.info.run_id for run in runs(mlflow_url, workflow_id)}
    study, heard = ray.get(drive.remote(taken, workflow_id, mlflow_url, 8))
    assert len(study.trials) == 8
    assert len(heard) < 8
    assert heard[-1][:2] == (8, 8)
    after = {run.info.run_id for run in runs(mlflow_url, workflow_id)}
    assert before <= after
    assert len(after) == 8
    assert {trial.run_id for trial in study.trials} == after


def test_finished_study_is_read_not_repeated(
    taken: Snapshot, workflow_id: str, mlflow_url: str
) -> None:
    first, _ = ray.get(drive.remote(taken, workflow_id, mlflow_url, 2))
    again, heard = ray.get(drive.remote(taken, workflow_id, mlflow_url, 2))
    assert heard == []
    assert again == first


def test_failed_trial_does_not_fail_the_study(
    taken: Snapshot, workflow_id: str, mlflow_url: str
) -> None:
    broken = [{"max_depth": -1}]
    study, heard = ray.get(drive.remote(taken, workflow_id, mlflow_url, 2, candidates=broken))
    assert len(study.trials) == 2
    assert sum("failed" in message for _, _, message in heard) == 1
    statuses = sorted(run.info.status for run in runs(mlflow_url, workflow_id))
    assert statuses == ["FAILED", "FINISHED", "FINISHED"]


def test_study_whose_trials_all_fail_is_an_error(
    taken: Snapshot, workflow_id: str, mlflow_url: str
) -> None:
    broken = [{"max_depth": -1}]
    with pytest.raises(WorkflowError, match="failed"):
        ray.get(drive.remote(taken, workflow_id, mlflow_url, 0, candidates=broken))
