from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from raysys.cli import runs
from raysys.records import Event, StepRun
from raysys.settings import Settings


def test_run_links_to_its_mlflow_run_and_its_latest_ray_task(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, mlflow_port=5001, ray_dashboard_port=8266)
    task = "3a20181b9c7a64a5ffffffffffffffffffffffff01000000"
    steps = [
        StepRun(number=1, name="open_run", status="SUCCESSFUL", task_id="older"),
        StepRun(number=2, name="search", status="RUNNING", task_id=task),
        StepRun(number=3, name="here", status="RUNNING"),
    ]
    at = datetime(2026, 1, 1, tzinfo=UTC)
    told = Event(workflow_id="w", at=at, step="open_run", message="m", fields={"run_id": "abc"})
    assert runs.links_of(settings, steps, [told]) == {
        "MLflow run": "http://127.0.0.1:5001/#/runs/abc",
        "Ray task": f"http://127.0.0.1:8266/#/jobs/01000000/tasks/{task}",
    }
    assert runs.links_of(settings, [], []) == {}
