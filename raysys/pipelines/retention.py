"""What is removed because it is old or too many; what an alias or a promotion points to never is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from raysys.artifacts import Artifacts
from raysys.durable import Client
from raysys.errors import NotFound
from raysys.pipelines import tune
from raysys.records import SNAPSHOT_TAG, Run, Snapshot
from raysys.registry import Registry
from raysys.settings import Settings
from raysys.store import decisions, events, feedback, predictions, promotions, snapshots
from raysys.tracking import Tracking

OVER = ("SUCCESSFUL", "FAILED", "CANCELED")
EVERYTHING = 1_000_000
TRAIN = "train"


def expired(
    items: Iterable[tuple[str, datetime]], *, days: int, most: int, now: datetime
) -> list[str]:
    """Return the names of `items` (name, time) that are older than `days`, or have `most` newer ones."""
    oldest = now - timedelta(days=days)
    ordered = sorted(items, key=lambda item: item[1], reverse=True)
    return [name for rank, (name, at) in enumerate(ordered) if rank >= most or at < oldest]


# -- runs ------------------------------------------------------------------------------------------


def old_runs(client: Client, settings: Settings, now: datetime) -> list[Run]:
    """Return the ended runs that are to be forgotten; one that is or may be resumed is none."""
    over = {run.id: run for run in client.history() if run.status in OVER}
    ages = [(run.id, run.ended_at or run.created_at) for run in over.values()]
    names = expired(ages, days=settings.keep_run_days, most=settings.keep_runs, now=now)
    return [over[name] for name in names]


def forget_ended(client: Client, engine: sa.Engine, artifacts: Artifacts, run_id: str) -> None:
    """Remove a run with all that it left; raises NotFound, and Conflict for one that still goes on."""
    run = client.run(run_id)
    if not run.ended:
        client.delete(run_id)  # which refuses, and says why
    forget_run(client, engine, artifacts, run)


def forget_run(client: Client, engine: sa.Engine, artifacts: Artifacts, run: Run) -> None:
    """Remove a run that has ended, and last of all the knowledge of it: logs, study, model file, events."""
    artifacts.remove(artifacts.uri(f"runs/{run.id}"))
    if run.name == TRAIN and run.family:
        artifacts.remove(tune.folder(artifacts, run.family, run.id))
        artifacts.remove(artifacts.uri(f"models/{run.family}/{run.id}"))
    events.forget(engine, [run.id])
    try:
        client.delete(run.id)
    except NotFound:  # it went with its parent
        return


def old_studies(
    client: Client, artifacts: Artifacts, settings: Settings, now: datetime
) -> list[str]:
    """Return the folders of the studies of trainings that succeeded long ago and are still known."""
    oldest = now - timedelta(days=settings.keep_study_days)
    folders = [
        tune.folder(artifacts, run.family, run.id)
        for run in client.history()
        if run.name == TRAIN
        and run.family
        and run.status == "SUCCESSFUL"
        and (run.ended_at or run.created_at) < oldest
    ]
    return [folder for folder in folders if artifacts.exists(folder)]


def close_tracked_runs(client: Client, tracking: Tracking) -> list[str]:
    """End the MLflow runs that trainings left running which were cancelled; return the trainings' ids."""
    closed = []
    for run in client.history():
        if run.name != TRAIN or run.status not in ("CANCELED", "FAILED"):
            continue
        for run_id in {
            e.fields["run_id"] for _, e in client.events(run.id) if "run_id" in e.fields
        }:
            if _closed(tracking, run_id):
                closed.append(run.id)
    return closed


def _closed(tracking: Tracking, run_id: str) -> int:
    try:
        return tracking.close_left(run_id)
    except NotFound:  # somebody removed it
        return 0


# -- models ----------------------------------------------------------------------------------------


def old_versions(
    engine: sa.Engine, registry: Registry, family: str, settings: Settings, now: datetime
) -> list[str]:
    """Return the versions of `family` that are to go: neither an alias nor a promotion ever named them."""
    moves = promotions.history(engine, family, limit=EVERYTHING)
    named = {version for move in moves for version in (move.to_version, move.from_version)}
    ages = [
        (version.version, version.created_at or now)
        for version in registry.versions(family)
        if not version.aliases and version.version not in named
    ]
    return expired(ages, days=settings.keep_version_days, most=settings.keep_versions, now=now)


def delete_version(registry: Registry, family: str, version: str) -> bool:
    """Remove a version unless an alias came to point to it meanwhile; return whether it is gone."""
    if version in registry.aliases().get(family, {}).values():
        return False
    registry.delete_version(registry.version(family, version))
    return True


# -- snapshots -------------------------------------------------------------------------------------


def old_snapshots(
    engine: sa.Engine,
    registry: Registry,
    family: str,
    settings: Settings,
    now: datetime,
    without: Sequence[str] = (),
) -> list[Snapshot]:
    """Return the snapshots of `family` that are to go: no version is made of them, and no known run used them.

    `without` names versions that do not count, as they are to go too. The newest is always kept.
    """
    used = events.mentioned(engine, "take_snapshot", "snapshot")
    used |= {
        version.tags.get(SNAPSHOT_TAG, "")
        for version in registry.versions(family)
        if version.version not in without
    }
    every = {each.hash: each for each in snapshots.every(engine, family)[1:]}
    ages = [(each.hash, each.created_at or now) for each in every.values()]
    most = settings.keep_snapshots - 1
    names = expired(ages, days=settings.keep_snapshot_days, most=most, now=now)
    return [every[name] for name in names if name not in used]


def forget_snapshot(engine: sa.Engine, artifacts: Artifacts, snapshot: Snapshot) -> None:
    """Remove a snapshot's file, then its entry."""
    artifacts.remove(snapshot.uri)
    snapshots.forget(engine, snapshot.family, snapshot.hash)


# -- predictions, their truth and what followed ----------------------------------------------------


def forget_predictions(engine: sa.Engine, settings: Settings, now: datetime, dry_run: bool) -> int:
    """Remove old predictions with their truth, or only count them; return how many."""
    before = now - timedelta(days=settings.keep_prediction_days)
    return predictions.forget(engine, before, settings.keep_predictions, dry_run)


def forget_feedback(engine: sa.Engine, settings: Settings, now: datetime, dry_run: bool) -> int:
    """Remove feedback as old as the oldest predictions, or only count it; return how much."""
    return feedback.forget(engine, now - timedelta(days=settings.keep_prediction_days), dry_run)


def forget_decisions(engine: sa.Engine, settings: Settings, now: datetime, dry_run: bool) -> int:
    """Remove decisions as old as the oldest versions, or only count them; return how many."""
    return decisions.forget(engine, now - timedelta(days=settings.keep_version_days), dry_run)
