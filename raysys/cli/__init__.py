"""The command line: thin commands that parse, call one function and print."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from raysys.cli import data, demo, machine, models, runs, schedules, screen, work
from raysys.errors import RaysysError

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
app.command()(work.crawl)
app.command()(work.train)
app.command()(work.predict)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(runs.app, name="runs")
app.add_typer(schedules.app, name="schedules")


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
    except RaysysError as error:
        if "--verbose" in sys.argv:
            raise
        screen.show_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        screen.err.print("interrupted; a started run goes on: `raysys runs list`")
        sys.exit(130)
