"""The command line: thin commands that parse, call one function and print."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated

import typer

from raysys.cli import (
    archive,
    bench,
    data,
    demo,
    lineage,
    machine,
    maintenance,
    models,
    quality,
    runs,
    schedules,
    screen,
    work,
)
from raysys.errors import RaysysError
from raysys.settings import UNREADABLE, refusal

COMMANDS = "raysys.commands"  # the entry points of other packages' commands

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The whole life of a model on one Ray cluster.",
)
app.command()(machine.up)
app.command()(machine.down)
app.command()(machine.status)
app.command("doctor")(machine.show_doctor)
app.command()(demo.demo)
app.command()(bench.bench)
app.command()(work.crawl)
app.command()(work.train)
app.command()(work.predict)
app.command()(quality.quality)
app.command()(lineage.lineage)
app.command()(maintenance.maintain)
app.command()(archive.backup)
app.command()(archive.restore)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(runs.app, name="runs")
app.add_typer(schedules.app, name="schedules")


def _add_foreign(point: EntryPoint) -> None:
    """List a command of another package; it is imported only when it is asked for."""

    def command(context: typer.Context) -> None:
        point.load()(context.args, prog_name=f"raysys {point.name}")

    given = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    help_text = f"Commands of the package {point.module.partition('.')[0]}; see --help there."
    app.command(point.name, help=help_text, context_settings=given)(command)


for _point in sorted(entry_points(group=COMMANDS)):
    _add_foreign(_point)


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """The whole life of a model on one Ray cluster."""


def main() -> None:
    """Run a command: exit 0 when it is done, 1 when it failed, 2 when it was used wrongly."""
    try:
        app()
    except (RaysysError, *UNREADABLE) as error:
        if "--verbose" in sys.argv:
            raise
        screen.show_error(error if isinstance(error, RaysysError) else refusal(error))
        sys.exit(1)
    except KeyboardInterrupt:
        screen.err.print("interrupted; a started run goes on: `raysys runs list`")
        sys.exit(130)
