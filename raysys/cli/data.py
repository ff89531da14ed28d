"""`raysys data`: rows in and a look at what is stored."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from raysys import families
from raysys.cli import screen
from raysys.cli.context import AsJson, FamilyName, opened
from raysys.pipelines import feedback, ingest
from raysys.store import quarantine

app = typer.Typer(no_args_is_help=True, help="Import rows and look at what is stored.")

CsvFile = Annotated[
    Path,
    typer.Argument(
        help="A CSV file with a header line.", exists=True, dir_okay=False, readable=True
    ),
]


@app.command("import")
def import_file(family: FamilyName, file: CsvFile, as_json: AsJson = False) -> None:
    """Import a CSV file: validated, all or nothing, and harmless to repeat."""
    with opened() as runtime:
        report = ingest.import_csv(
            runtime.engine,
            families.get(family),
            file,
            settings=runtime.settings,
            now=datetime.now(UTC),
        )
    if as_json:
        screen.show_json(report)
        return
    screen.say(
        f"{family}: read {report.read} rows of {file.name}: "
        f"{report.new} new, {report.known} known, {len(report.rejected)} rejected."
    )
    for row in report.rejected:
        screen.note(f"  line {row.line}: {row.reason}")


@app.command("feedback")
def give_feedback(family: FamilyName, file: CsvFile, as_json: AsJson = False) -> None:
    """Send the truth of predictions: request_id or key, value, perhaps row and position; harmless to repeat."""
    with opened() as runtime:
        report = feedback.import_csv(
            runtime.engine, families.get(family), file, now=datetime.now(UTC)
        )
    if as_json:
        screen.show_json(report)
        return
    screen.say(
        f"{family}: read {report.read} values of {file.name}, about {report.new} predictions anew and "
        f"{report.known} as before. They are joined within the hour, or now: "
        f"`raysys quality {family} --join`."
    )


@app.command("show")
def show(family: FamilyName, as_json: AsJson = False) -> None:
    """Show how many rows are stored, of what time, and what was rejected lately."""
    with opened() as runtime:
        stored = ingest.stored(runtime.engine, families.get(family), runtime.settings)
        rejected = quarantine.recent(runtime.engine, family, limit=20)
    if as_json:
        screen.show_json({**stored, "rejected": rejected})
        return
    screen.show_rows(f"Rows of {family}", tuple(stored), [tuple(stored.values())], empty="")
    screen.show_rows(
        "Rejected lately",
        ("line", "key", "reason"),
        [(r.line, r.key, r.reason) for r in rejected],
        empty="No row was rejected.",
    )
