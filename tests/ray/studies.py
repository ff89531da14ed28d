"""What the tests of the search run in a Ray task: a driver that may die in the middle of a study."""

from __future__ import annotations

import os
from typing import Any

import ray

from raysys.artifacts import Artifacts
from raysys.families.insurance import Insurance
from raysys.pipelines import tune
from raysys.records import Snapshot, Study
from raysys.settings import Settings
from raysys.tracking import Tracking


@ray.remote(num_cpus=0, max_retries=0)
def drive(
    snapshot: Snapshot,
    workflow_id: str,
    url: str,
    trials: int,
    die_after: int | None = None,
    candidates: list[dict[str, Any]] | None = None,
) -> tuple[Study, list[tuple[int | None, int | None, str]]]:
    """Search as the durable step does, and return what was heard of it.

    The process ends without a word after `die_after` trials. `candidates` replace the family's own.
    """
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "0"  # these trials take no second
    settings, heard = Settings(), []
    artifacts = Artifacts(settings.artifact_root)
    if candidates is not None:
        Insurance.candidates = lambda _: candidates  # type: ignore[assignment,method-assign]

    def notify(done: int | None, total: int | None, message: str, _: dict[str, Any]) -> None:
        heard.append((done, total, message))
        if done == die_after:
            os._exit(1)

    with Tracking(url) as tracking:
        study = tune.search(
            family_name="insurance",
            snapshot=snapshot,
            artifacts=artifacts,
            study_folder=tune.folder(artifacts, "insurance", workflow_id),
            settings=settings,
            tracking=tracking,
            run_id=tracking.open_run("insurance", workflow_id),
            trials=trials,
            notify=notify,
        )
    return study, heard
