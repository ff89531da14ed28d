"""The search for a family's best configuration: the driver of Ray Tune, run as one Ray task.

A study lives in a folder of the artifact store. A search that is called again with the same folder
goes on from the trials that had finished.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from raysys import families, tracing
from raysys.artifacts import Artifacts
from raysys.errors import WorkflowError
from raysys.families import figures
from raysys.families.base import Family, Parts
from raysys.pipelines import provenance
from raysys.pipelines import snapshot as snapshots
from raysys.records import Snapshot, Study, Trial
from raysys.settings import Settings
from raysys.tracking import Tracking

if TYPE_CHECKING:
    from raysys.pipelines.ray_tune import Search

Notify = Callable[[int | None, int | None, str, dict[str, Any]], None]
FAILURES_OF_A_TRIAL = 1  # a node may go away under a trial once


def folder(artifacts: Artifacts, family_name: str, workflow_id: str) -> str:
    """Return where the study of a workflow lives."""
    return artifacts.uri(f"studies/{family_name}/{workflow_id}")


def release(study_folder: str) -> None:
    """Give back the CPUs of a study whose driver is dead; nothing happens when it holds none.

    Ray does not: a reservation lives as long as the worker actor that started the driver.
    """
    from raysys.pipelines import ray_tune

    ray_tune.release(_name(study_folder))


def search(
    *,
    family_name: str,
    snapshot: Snapshot,
    artifacts: Artifacts,
    study_folder: str,
    settings: Settings,
    tracking: Tracking,
    run_id: str,
    trials: int,
    notify: Notify,
) -> Study:
    """Try `trials` configurations of the family's space, and its candidates from outside of it.

    Each trial is an MLflow run nested under `run_id`. A trial that fails is left out; raises
    WorkflowError when all fail.
    """
    from raysys.pipelines.ray_tune import Relay, Search

    _quiet()
    family = families.get(family_name)
    parts = family.split(snapshots.load(artifacts, snapshot), settings.seed)
    _describe(family, snapshot, tracking, run_id, settings.seed, trials)
    searcher = Search(family.space(), family.candidates(), settings.seed)
    total = trials + len(searcher.outside)
    recorder = Recorder(family, tracking, run_id, total, notify)
    release(study_folder)  # what a driver that was killed left behind
    try:
        with Relay.to(recorder):
            grid = _tuner(family, parts, settings, study_folder, searcher, total).fit()
    finally:
        release(study_folder)
    study = _study(family, grid, tracking.trials(run_id))
    _conclude(study, recorder, tracking, run_id)
    return study


class Recorder:
    """Writes the trials of one study to MLflow, and tells how far the study is."""

    def __init__(
        self, family: Family, tracking: Tracking, run_id: str, total: int, notify: Notify
    ) -> None:
        self._family = family
        self._tracking = tracking
        self._run_id = run_id
        self._total = total
        self._notify = notify
        self._configs: dict[str, Mapping[str, Any]] = {}
        self._ended = set(tracking.trials(run_id))  # in an earlier life of this study
        self.curves: dict[str, list[float]] = {}

    def started(self, trial_id: str, config: Mapping[str, Any]) -> None:
        """Make the trial's run."""
        self._ended.discard(trial_id)
        self._configs[trial_id] = config
        self.curves[trial_id] = []
        self._tracking.open_trial(self._run_id, trial_id, config)

    def reported(self, trial_id: str, epoch: int, metric: float) -> None:
        """Log the metric at its epoch; Tune repeats the last report when a trial ends."""
        if epoch <= len(self.curves[trial_id]):
            return
        self.curves[trial_id].append(metric)
        run_id = self._tracking.trials(self._run_id)[trial_id]
        self._tracking.log_metrics(run_id, {self._family.metric: metric}, step=epoch)

    def ended(self, trial_id: str, failed: bool) -> None:
        """Close the trial's run."""
        run_id = self._tracking.trials(self._run_id)[trial_id]
        self._tracking.close_run(run_id, "FAILED" if failed else "FINISHED")
        self._ended.add(trial_id)
        self._notify(len(self._ended), self._total, *self._line(trial_id, failed))

    def _line(self, trial_id: str, failed: bool) -> tuple[str, dict[str, Any]]:
        curve, config = self.curves.get(trial_id, []), dict(self._configs.get(trial_id, {}))
        metric = curve[-1] if curve else None
        how = "failed" if failed or metric is None else f"{self._family.metric} {metric:.4g}"
        fields = {"trial_id": trial_id, "metric": metric, "epochs": len(curve), "config": config}
        return f"trial {trial_id}: {how}", fields


def _describe(
    family: Family,
    snapshot: Snapshot,
    tracking: Tracking,
    run_id: str,
    seed: int,
    trials: int,
) -> None:
    facts = provenance.of(family, snapshot, seed=seed, trials=trials)
    tracking.log_json(run_id, "lineage", facts)
    tracking.log_params(
        run_id,
        {"snapshot": snapshot.hash, "rows": snapshot.rows, "seed": seed, "trials": trials},
    )
    if facts["git_commit"]:
        tracking.set_tags(run_id, {"mlflow.source.git.commit": facts["git_commit"]})


def _tuner(
    family: Family,
    parts: Parts,
    settings: Settings,
    study_folder: str,
    searcher: Search,
    total: int,
) -> Any:
    from ray import tune

    from raysys.pipelines.ray_tune import Relay, Reservation, trial

    task = tune.with_parameters(
        trial,
        family_name=family.name,
        parts=parts,
        seed=settings.seed,
        traceparent=tracing.here(),
    )
    cpus = Reservation(_name(study_folder), settings.trial_cpus)
    trainable = tune.with_resources(task, cpus)
    if tune.Tuner.can_restore(study_folder):
        return tune.Tuner.restore(study_folder, trainable, restart_errored=True)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=_scheduler(family),
            num_samples=total,
            max_concurrent_trials=_concurrency(settings.trial_cpus),
            reuse_actors=True,  # TensorFlow is imported once an actor, not once a trial
        ),
        run_config=tune.RunConfig(
            name=_name(study_folder),
            storage_path=study_folder.rsplit("/", 1)[0],
            callbacks=[Relay()],
            failure_config=tune.FailureConfig(max_failures=FAILURES_OF_A_TRIAL),
            verbose=0,
        ),
    )


def _name(study_folder: str) -> str:
    return study_folder.rsplit("/", 1)[1]


def _scheduler(family: Family) -> Any:
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    from raysys.pipelines.ray_tune import METRIC

    if family.epochs == 1:
        return FIFOScheduler()
    grace = max(1, family.epochs // 3)
    return ASHAScheduler(
        metric=METRIC, mode="min", max_t=family.epochs, grace_period=grace, reduction_factor=2
    )


def _concurrency(trial_cpus: float) -> int:
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1.0) // trial_cpus))


def _quiet() -> None:
    import optuna

    for name, value in {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow has it all
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # a cancelled task must end, not save and return
        "TUNE_GLOBAL_CHECKPOINT_S": "1",  # what a driver that dies loses of finished trials
        "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints tables even when it is told not to
    }.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _study(family: Family, grid: Any, run_ids: Mapping[str, str]) -> Study:
    from raysys.pipelines.ray_tune import METRIC

    trials = [
        Trial(
            trial_id=result.metrics["trial_id"],
            run_id=run_ids[result.metrics["trial_id"]],
            config=dict(result.config),
            metric=float(result.metrics[METRIC]),
            seconds=round(float(result.metrics["time_total_s"]), 3),
            epochs=int(result.metrics["training_iteration"]),
        )
        for result in grid
        if result.metrics and math.isfinite(result.metrics.get(METRIC, math.nan))
    ]
    if not trials:
        raise WorkflowError(
            f"All {len(grid)} trials of {family.name} failed; the last error was:"
            f" {grid.errors[-1] if grid.errors else 'none, but no finite metric came'}.",
            family=family.name,
        )
    trials.sort(key=lambda trial: (trial.metric, trial.trial_id))
    return Study(family=family.name, metric_name=family.metric, best=trials[0], trials=trials)


def _conclude(study: Study, recorder: Recorder, tracking: Tracking, run_id: str) -> None:
    tracking.log_params(run_id, {f"best.{key}": value for key, value in study.best.config.items()})
    name = f"validation_{study.metric_name}"
    tracking.log_metrics(run_id, {name: study.best.metric, "trials": len(study.trials)})
    curves = {trial_id: curve for trial_id, curve in recorder.curves.items() if len(curve) > 1}
    if curves:
        drawn = figures.lines(curves, x="epoch", y=name, title="Learning curves", start=1)
        tracking.log_figures(run_id, {"learning_curves": drawn})
