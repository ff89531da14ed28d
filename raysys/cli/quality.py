"""`raysys quality`: how the versions of a family do on live traffic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from raysys import families
from raysys.cli import screen
from raysys.cli.context import AsJson, FamilyName, opened
from raysys.families.base import Family, Predict
from raysys.pipelines import quality as measuring
from raysys.records import ModelVersion, QualityReport, QualityWindow, VersionQuality
from raysys.runtime import Runtime

HEAD = ("version", "from (UTC)", "predictions", "coverage", "live", "baseline", "test")


def quality(
    family: FamilyName,
    days: Annotated[int, typer.Option(min=1, max=365, help="Days that are looked at.")] = 7,
    hours: Annotated[int, typer.Option(min=1, max=168, help="Length of a window, in hours.")] = 24,
    join: Annotated[
        bool, typer.Option("--join", help="Join new truth first, instead of within the hour.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the live error of each version beside its baseline's on the same values and its own test error."""
    kind = families.get(family)
    with opened() as runtime:
        joined = _join(runtime, kind) if join else None
        report = _report(runtime, kind, days, timedelta(hours=hours))
    if as_json:
        screen.show_json(report)
        return
    if joined:
        screen.note(joined)
    screen.show_rows(
        f"Live {report.metric} of {family}{f', {report.unit}' if report.unit else ''}",
        HEAD,
        [row for version in report.versions for row in _rows(version)],
        empty=f"No prediction of {family} was logged in {days} days.",
    )


def _join(runtime: Runtime, family: Family) -> str:
    from raysys.pipelines import truth

    report = truth.join(runtime.engine, family, runtime.settings, now=datetime.now(UTC))
    return (
        f"{report.added} truths are new and {report.revised} other than before; "
        f"{report.completed} predictions have theirs whole now, {report.unplaced} are not placed, "
        f"{report.unmatched} pieces of feedback meet no prediction."
    )


def _report(runtime: Runtime, family: Family, days: int, step: timedelta) -> QualityReport:
    def simple(version: ModelVersion) -> Predict | None:
        given = (runtime.engine, runtime.artifacts, family, version, runtime.settings.seed)
        return measuring.baseline_of(*given)

    return measuring.report(
        runtime.engine,
        family,
        runtime.registry.versions(family.name),
        days=days,
        step=step,
        now=datetime.now(UTC),
        baseline_of=simple,
    )


def _rows(quality: VersionQuality) -> list[tuple[object, ...]]:
    name = " ".join((quality.version, *quality.aliases))
    rows = [_row(name, window, None) for window in quality.windows]
    return [_row(name, quality.overall, quality.test_error), *rows] if quality.overall else rows


def _row(name: str, window: QualityWindow, test_error: float | None) -> tuple[object, ...]:
    return (
        name,
        window.since,
        window.predictions,
        f"{window.coverage:.0%}",
        window.error,
        window.baseline_error,
        test_error,
    )
