"""`raysys maintain`: the removal of what is old, now instead of at its hour."""

from __future__ import annotations

from typing import Annotated

import typer

from raysys.cli import screen
from raysys.cli.context import AsJson, opened
from raysys.cli.runs import finish
from raysys.records import MaintenanceReport, revive


def maintain(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing, only show what would go.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove runs, snapshots, studies, versions and predictions that are older or more than `keep_*` settings say."""
    with opened() as runtime:
        run = finish(runtime.durable, runtime.durable.start("maintenance", dry_run))
    report = revive(run.output, MaintenanceReport)
    if as_json:
        screen.show_json(report)
        return
    rows = [
        (kind, count, ", ".join(report.names.get(kind, [])[:5]))
        for kind, count in sorted(report.removed.items())
    ]
    title = "Would be removed" if report.dry_run else "Removed"
    screen.show_rows(title, ("what", "how many", "the first of them"), rows, empty="Nothing.")
    if report.closed:
        screen.say(f"MLflow runs closed of: {', '.join(report.closed)}")
