"""`raysys schedules`: what runs by itself, and when."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from raysys.cli import screen
from raysys.cli.context import AsJson, opened

app = typer.Typer(no_args_is_help=True, help="Cron schedules.")

Name = Annotated[
    str, typer.Argument(help="A schedule, as `raysys schedules list` shows it.", metavar="NAME")
]


@app.command("list")
def list_schedules(as_json: AsJson = False) -> None:
    """List the schedules with their last and next time."""
    with opened() as runtime:
        schedules = runtime.durable.schedules()
    if as_json:
        screen.show_json(schedules)
        return
    screen.show_rows(
        "Schedules",
        ("name", "workflow", "cron", "zone", "state", "last", "next"),
        [
            (
                s.name,
                s.workflow,
                s.cron,
                s.zone,
                "paused" if s.paused else "active",
                s.last_at,
                s.next_at,
            )
            for s in schedules
        ],
        empty="No schedule is known yet: the worker makes them. Run `raysys up`.",
    )


@app.command("pause")
def pause(name: Name) -> None:
    """Stop a schedule until it is resumed."""
    with opened() as runtime:
        runtime.durable.pause_schedule(name)
    screen.say(f"{name} is paused.")


@app.command("resume")
def resume(name: Name) -> None:
    """Let a paused schedule run again."""
    with opened() as runtime:
        runtime.durable.resume_schedule(name)
    screen.say(f"{name} is active.")


@app.command("trigger")
def trigger(name: Name) -> None:
    """Start a schedule's workflow now; prints the id of the run."""
    with opened() as runtime:
        screen.say(runtime.durable.trigger_schedule(name))


@app.command("backfill")
def backfill(
    name: Name,
    since: Annotated[datetime, typer.Option(help="First tick, UTC.")],
    until: Annotated[datetime, typer.Option(help="Last tick, UTC.")],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most ticks that are made up.")] = 31,
) -> None:
    """Make up the ticks of a past time; prints the ids of the runs."""
    with opened() as runtime:
        for id in runtime.durable.backfill_schedule(name, since, until, limit=limit):
            screen.say(id)
