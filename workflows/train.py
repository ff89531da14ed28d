"""The durable training: snapshot, search, refit, compare, register, promote; each step picks up where it was."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from raysys import durable, families, metrics
from raysys.errors import RaysysError
from raysys.families.base import Series
from raysys.records import (
    SNAPSHOT_TAG,
    Evaluation,
    ModelFile,
    ModelVersion,
    Record,
    Snapshot,
    Study,
    TrainReport,
    Verdict,
    plain,
    revive,
)
from raysys.runtime import Runtime
from raysys.settings import Settings
from raysys.store import snapshots


class Taken(Record, frozen=True):
    """The snapshot that a training uses: its hash, by which every step reads it again."""

    hash: str
    rows: int


class Found(Record, frozen=True):
    """The outcome of the search; the whole study lies at `uri`, as it may be larger than a step's result."""

    uri: str
    trials: int
    metric_name: str
    metric: float
    config: dict[str, Any]


class Judged(Record, frozen=True):
    """How the model compares with the baselines and the champion, and whether it may serve."""

    evaluation: Evaluation
    verdict: Verdict


@durable.workflow(name="train")
def train(family: str, trials: int | None = None) -> dict[str, Any]:
    """Train `family` on all its rows with `trials` searched configurations; promote the model when it passes its gate.

    Returns a TrainReport. However it ends, the MLflow run is closed.
    """
    taken = take_snapshot(family)
    run_id = open_run(family, taken.hash)
    try:
        report = _trained(family, trials, taken, run_id)
    except RaysysError:
        close_run(run_id, "FAILED")
        raise
    close_run(run_id, "FINISHED")
    return dict(plain(report))


def _trained(family: str, trials: int | None, taken: Taken, run_id: str) -> TrainReport:
    found = search(family, taken.hash, run_id, trials)
    model = refit(family, taken.hash, run_id, found.uri)
    judged = evaluate(family, taken.hash, run_id, model)
    version = register(family, taken.hash, run_id, model, judged)
    if judged.verdict.passed:
        promote(family, version.version, judged)
    return TrainReport(
        family=family,
        snapshot=taken.hash,
        rows=taken.rows,
        trials=found.trials,
        version=version.version,
        run_id=run_id,
        metric_name=found.metric_name,
        evaluation=judged.evaluation,
        verdict=judged.verdict,
        promoted=judged.verdict.passed,
        search_metric=found.metric,
        best=found.config,
    )


@durable.step(where="ray", num_cpus=0)
def take_snapshot(family: str) -> Taken:
    """Freeze the rows that there are now."""
    from raysys.pipelines import snapshot
    from raysys.sources import series_name

    with Runtime() as runtime:
        of_series = isinstance(families.get(family).data, Series)
        taken = snapshot.take(
            runtime.engine,
            runtime.artifacts,
            families.get(family),
            series_name(runtime.settings) if of_series else None,
            workflow_id=durable.workflow_id(),
            now=datetime.now(UTC),
        )
    message = f"snapshot {taken.hash[:12]} of {taken.rows} rows"
    durable.notify(message, snapshot=taken.hash, family=family)
    return Taken(hash=taken.hash, rows=taken.rows)


@durable.step(where="ray", num_cpus=0)
def open_run(family: str, snapshot: str) -> str:
    """Make the MLflow run, so that every later step, and every repetition of one, writes to the same."""
    with Runtime() as runtime:
        tags = {SNAPSHOT_TAG: snapshot}
        run_id = runtime.tracking.open_run(family, durable.workflow_id(), tags)
    durable.notify(f"MLflow run {run_id}", run_id=run_id)
    return run_id


def count(found: Found, family: str, *_: Any) -> None:
    """Count the trials of a search that has ended, and show its best."""
    metrics.add("trials", found.trials, family=family)
    metrics.level("best_metric", found.metric, family=family)


# No CPU: it only drives the trials, which take theirs from the cluster.
@durable.step(where="ray", num_cpus=0, spawns=True, measured=count)
def search(family: str, snapshot: str, run_id: str, trials: int | None) -> Found:
    """Search configurations; after a crash the study goes on with its finished trials."""
    from raysys.pipelines import tune

    workflow_id = durable.workflow_id()
    with Runtime() as runtime:
        study = tune.search(
            family_name=family,
            snapshot=_snapshot(runtime, family, snapshot),
            artifacts=runtime.artifacts,
            study_folder=tune.folder(runtime.artifacts, family, workflow_id),
            settings=runtime.settings,
            tracking=runtime.tracking,
            run_id=run_id,
            trials=trials or runtime.settings.train_trials,
            notify=_notify,
        )
        return Found(
            uri=_keep(runtime, workflow_id, study),
            trials=len(study.trials),
            metric_name=study.metric_name,
            metric=study.best.metric,
            config=study.best.config,
        )


def _notify(done: int | None, total: int | None, message: str, fields: dict[str, Any]) -> None:
    durable.notify(message, done=done, total=total, **fields)


def _keep(runtime: Runtime, workflow_id: str, study: Study) -> str:
    import json

    return str(
        runtime.artifacts.put(f"runs/{workflow_id}/study.json", json.dumps(plain(study)).encode())
    )


def _study(runtime: Runtime, uri: str) -> Study:
    import json

    return revive(json.loads(runtime.artifacts.get(uri)), Study)


def _snapshot(runtime: Runtime, family: str, name: str) -> Snapshot:
    return snapshots.get(runtime.engine, family, name)


@durable.step(where="ray", num_cpus="trial_cpus")
def refit(family: str, snapshot: str, run_id: str, study: str) -> ModelFile:
    """Fit the winner on all training rows, export it to ONNX, and compare the two on held-out rows."""
    from raysys.pipelines import train as pipeline

    with Runtime() as runtime:
        return pipeline.refit(
            family_name=family,
            snapshot=_snapshot(runtime, family, snapshot),
            study=_study(runtime, study),
            artifacts=runtime.artifacts,
            settings=runtime.settings,
            tracking=runtime.tracking,
            run_id=run_id,
            workflow_id=durable.workflow_id(),
        )


@durable.step(where="ray", num_cpus=1)
def evaluate(family: str, snapshot: str, run_id: str, model: ModelFile) -> Judged:
    """Score the model, the baselines and the champion on the same held-out rows, and ask the gate."""
    from raysys.pipelines import evaluate as pipeline

    with Runtime() as runtime:
        champion = runtime.registry.champion(family)
        evaluation = pipeline.compare(
            family_name=family,
            snapshot=_snapshot(runtime, family, snapshot),
            model=model,
            champion=None if champion is None else runtime.registry.fetch(champion),
            champion_version=None if champion is None else champion.version,
            artifacts=runtime.artifacts,
            settings=runtime.settings,
            tracking=runtime.tracking,
            run_id=run_id,
        )
    verdict = pipeline.gate(families.get(family), evaluation, model)
    durable.notify(f"gate {'passed' if verdict.passed else 'refused'}: {verdict.reason}")
    return Judged(evaluation=evaluation, verdict=verdict)


@durable.step(where="ray", num_cpus=0)
def register(
    family: str, snapshot: str, run_id: str, model: ModelFile, judged: Judged
) -> ModelVersion:
    """Make the model a version of the registry, with the verdict beside it."""
    from raysys.pipelines import train as pipeline

    with Runtime() as runtime:
        version = pipeline.register(
            family_name=family,
            snapshot=_snapshot(runtime, family, snapshot),
            model=model,
            evaluation=judged.evaluation,
            verdict=judged.verdict,
            artifacts=runtime.artifacts,
            settings=runtime.settings,
            tracking=runtime.tracking,
            run_id=run_id,
            workflow_id=durable.workflow_id(),
        )
    durable.notify(
        f"registered as version {version.version}",
        family=family,
        version=version.version,
        run_id=run_id,
        snapshot=snapshot,
    )
    return version


@durable.step(where="ray", num_cpus=0)
def promote(family: str, version: str, judged: Judged) -> str:
    """Move the alias `champion` to the new version; a repetition moves nothing."""
    from raysys.pipelines import promote as pipeline

    workflow_id = durable.workflow_id()
    with Runtime() as runtime:
        promotion = pipeline.promote(
            runtime.engine,
            runtime.registry,
            family=family,
            version=version,
            actor="train",
            reason=judged.verdict.reason,
            id=f"{workflow_id}-promote",
            report=plain(judged),
            now=datetime.now(UTC),
        )
    durable.notify(f"version {version} is champion", version=version)
    return promotion.id


@durable.step(where="ray", num_cpus=0)
def close_run(run_id: str, status: Literal["FINISHED", "FAILED"]) -> None:
    """Close the MLflow run."""
    with Runtime() as runtime:
        runtime.tracking.close_run(run_id, status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Start a training, tell its progress line by line, and return 0 when it succeeded, else 1."""
    import argparse

    from workflows.console import run_to_end

    parser = argparse.ArgumentParser(prog="python -m workflows.train", description=main.__doc__)
    parser.add_argument("family", help="the family to train")
    parser.add_argument(
        "--trials", type=int, help=f"trials of the study (default: {Settings().train_trials})"
    )
    chosen = parser.parse_args(arguments)
    return run_to_end("train", chosen.family, chosen.trials)


if __name__ == "__main__":
    raise SystemExit(main())
