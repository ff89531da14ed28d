"""The durable maintenance: a day's removal of what is old, by the rules of `raysys.pipelines.retention`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from raysys import durable, families
from raysys.records import MaintenanceReport, plain
from raysys.runtime import Runtime

SHOWN = 50  # names of what went, of each kind


@durable.workflow(name="maintenance")
def maintenance(dry_run: bool = False) -> dict[str, Any]:
    """Remove what is older or more than the settings `keep_*` say; with `dry_run` only tell what would go.

    Returns a MaintenanceReport. A repetition removes what is left.
    """
    predictions = remove_predictions(dry_run)
    said = remove_feedback_and_decisions(dry_run)
    runs = remove_runs(dry_run)
    versions, used = remove_models(dry_run)  # what needs MLflow comes last: it may be away
    closed = close_tracked_runs(dry_run)
    removed = {**runs, "versions": versions, "snapshots": used}
    report = MaintenanceReport(
        dry_run=dry_run,
        removed={
            **{kind: len(names) for kind, names in removed.items()},
            "predictions": predictions,
            **said,
        },
        names={kind: names[:SHOWN] for kind, names in removed.items() if names},
        closed=closed[:SHOWN],
    )
    return dict(plain(report))


@durable.step(where="ray", num_cpus=0)
def close_tracked_runs(dry_run: bool) -> list[str]:
    """Close the MLflow runs that cancelled trainings left open."""
    from raysys.pipelines import retention

    if dry_run:
        return []
    with Runtime() as runtime:
        return retention.close_tracked_runs(runtime.durable, runtime.tracking)[:SHOWN]


@durable.step(where="ray", num_cpus=0)
def remove_models(dry_run: bool) -> list[list[str]]:
    """Remove old versions and snapshots of every family that is not trained just now."""
    from raysys.pipelines import retention

    now = datetime.now(UTC)
    gone: list[list[str]] = [[], []]
    with Runtime() as runtime:
        for family in _idle_families(runtime):
            given = (runtime.engine, runtime.registry, family, runtime.settings, now)
            versions = retention.old_versions(*given)
            if not dry_run:
                registry = runtime.registry
                versions = [v for v in versions if retention.delete_version(registry, family, v)]
            old = retention.old_snapshots(*given, without=versions)
            for snapshot in () if dry_run else old:
                retention.forget_snapshot(runtime.engine, runtime.artifacts, snapshot)
            gone[0] += [f"{family} {version}" for version in versions]
            gone[1] += [f"{family} {snapshot.hash[:12]}" for snapshot in old]
    _tell(dry_run, f"{len(gone[0])} versions, {len(gone[1])} snapshots")
    return gone


def _idle_families(runtime: Runtime) -> list[str]:
    """Return the families of which no training runs: it may be about to use an old snapshot."""
    active = {run.family for run in runtime.durable.history() if not run.ended}
    return [name for name in families.names() if name not in active]


@durable.step(where="ray", num_cpus=0)
def remove_runs(dry_run: bool) -> dict[str, list[str]]:
    """Remove old runs with all that is theirs, and the studies of trainings that ended well."""
    from raysys.pipelines import retention

    now = datetime.now(UTC)
    with Runtime() as runtime:
        client, engine, artifacts = runtime.durable, runtime.engine, runtime.artifacts
        runs = retention.old_runs(client, runtime.settings, now)
        studies = retention.old_studies(client, artifacts, runtime.settings, now)
        for run in () if dry_run else runs:
            retention.forget_run(client, engine, artifacts, run)
        for study in () if dry_run else studies:
            artifacts.remove(study)
    _tell(dry_run, f"{len(runs)} runs, {len(studies)} studies")
    names = [run.id for run in runs][:1000]
    return {"runs": names, "studies": [each.rsplit("/", 1)[-1] for each in studies][:1000]}


@durable.step(where="ray", num_cpus=0)
def remove_predictions(dry_run: bool) -> int:
    """Remove old predictions."""
    from raysys.pipelines import retention

    with Runtime() as runtime:
        now = datetime.now(UTC)
        count = retention.forget_predictions(runtime.engine, runtime.settings, now, dry_run)
    _tell(dry_run, f"{count} predictions")
    return count


@durable.step(where="ray", num_cpus=0)
def remove_feedback_and_decisions(dry_run: bool) -> dict[str, int]:
    """Remove old feedback, and the decisions of policies that were taken long ago."""
    from raysys.pipelines import retention

    with Runtime() as runtime:
        given = (runtime.engine, runtime.settings, datetime.now(UTC), dry_run)
        counts = {
            "feedback": retention.forget_feedback(*given),
            "decisions": retention.forget_decisions(*given),
        }
    _tell(dry_run, ", ".join(f"{count} {what}" for what, count in counts.items()))
    return counts


def _tell(dry_run: bool, what: str) -> None:
    durable.notify(f"{'would remove' if dry_run else 'removed'} {what}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Start a maintenance, tell its progress line by line, and return 0 when it succeeded, else 1."""
    import argparse

    from workflows.console import run_to_end

    parser = argparse.ArgumentParser(
        prog="python -m workflows.maintenance", description=main.__doc__
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell what would go")
    return run_to_end("maintenance", parser.parse_args(arguments).dry_run)


if __name__ == "__main__":
    raise SystemExit(main())
