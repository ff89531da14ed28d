"""`raysys runs` and the following of a run: what a workflow does, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from raysys.cli import screen
from raysys.cli.context import AsJson, opened
from raysys.durable import Client
from raysys.errors import WorkflowError
from raysys.pipelines import retention
from raysys.records import Event, Run, StepRun
from raysys.settings import Settings

LOG_LINES = 20

app = typer.Typer(no_args_is_help=True, help="Workflow runs and their steps.")

RunId = Annotated[
    str, typer.Argument(help="The id of a run, as `raysys runs list` shows it.", metavar="ID")
]


@app.command("list")
def list_runs(
    name: Annotated[
        str | None, typer.Option(help="Only runs of this workflow, such as train.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 30,
    as_json: AsJson = False,
) -> None:
    """List the latest runs."""
    with opened() as runtime:
        runs = runtime.durable.list(name=name, limit=limit)
    if as_json:
        screen.show_json(runs)
        return
    screen.show_rows(
        "Runs",
        ("id", "workflow", "status", "started (UTC)", "ended (UTC)", "error"),
        [(r.id, r.name, r.status, r.started_at, r.ended_at, r.error) for r in runs],
        empty="Nothing ran yet. Start a run: `raysys crawl FAMILY` or `raysys train FAMILY`.",
    )


@app.command("show")
def show(
    id: RunId,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show progress until the run ends.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one run: its status, each step, where it ran, and the last lines of its log."""
    with opened() as runtime:
        if follow:
            show_progress(runtime.durable, id)
        run, steps = runtime.durable.run(id), runtime.durable.steps(id)
        events = [event for _, event in runtime.durable.events(id)]
        log = runtime.durable.log(id, LOG_LINES)
        links = links_of(runtime.settings, steps, events)
    if as_json:
        where, lines = log or (None, [])
        screen.show_json(
            {
                "run": run,
                "steps": steps,
                "events": events,
                "links": links,
                "log": {"uri": where, "tail": lines},
            }
        )
        return
    screen.say(
        f"{run.id}: {run.status}" + (f" ({run.error_type}: {run.error})" if run.error else "")
    )
    screen.show_rows(
        "Steps",
        ("no", "step", "status", "attempts", "started (UTC)", "seconds", "where", "error"),
        [
            (s.number, s.name, s.status, s.attempts, s.started_at, s.seconds, s.where, s.error)
            for s in steps
        ],
        empty="No step has begun yet.",
    )
    for event in events[-15:]:
        screen.say(line_of(event))
    if log is not None:
        where, lines = log
        screen.say(f"The end of {where}")
        for line in lines:
            screen.say(f"  {line}")
    for name, url in links.items():
        screen.say(f"{name:12} {url}")


def links_of(
    settings: Settings, steps: Sequence[StepRun], events: Sequence[Event]
) -> dict[str, str]:
    """Return the pages of the run's MLflow run and of its latest Ray task, where it has them."""
    links = {}
    tracked = [event.fields["run_id"] for event in events if "run_id" in event.fields]
    if tracked:
        links["MLflow run"] = f"{settings.tracking_uri}/#/runs/{tracked[0]}"
    tasks = [step.task_id for step in steps if step.task_id]
    if tasks:  # the last eight digits of a task's id are its job's
        links["Ray task"] = f"{settings.dashboard_url}/#/jobs/{tasks[-1][-8:]}/tasks/{tasks[-1]}"
    return links


@app.command("cancel")
def cancel(id: RunId) -> None:
    """Stop a run; the step that runs now is ended too."""
    with opened() as runtime:
        runtime.durable.cancel(id)
    screen.say(f"{id} is canceled. `raysys runs resume {id}` goes on from its last finished step.")


@app.command("resume")
def resume(id: RunId) -> None:
    """Go on with a canceled or interrupted run from its last finished step."""
    with opened() as runtime:
        runtime.durable.resume(id)
    screen.say(f"{id} goes on.")


@app.command("fork")
def fork(
    id: RunId,
    step: Annotated[
        int | None,
        typer.Option(min=1, help="The first step to run again; the failed one by default."),
    ] = None,
) -> None:
    """Run a finished run again from one of its steps, under a new id."""
    with opened() as runtime:
        screen.say(runtime.durable.fork(id, step))


@app.command("delete")
def delete(id: RunId) -> None:
    """Forget a run that has ended, with its events, logs and study."""
    with opened() as runtime:
        retention.forget_ended(runtime.durable, runtime.engine, runtime.artifacts, id)
    screen.say(f"{id} is deleted.")


def started(client: Client, id: str, *, wait: bool, as_json: bool) -> Run | None:
    """Tell the id of a run that was just started; with `wait`, return it when it has succeeded."""
    if not wait:
        screen.show_json({"id": id}) if as_json else screen.say(id)
        return None
    # A program that asked for JSON gets the outcome alone on standard output.
    screen.note(id) if as_json else screen.say(id)
    return finish(client, id)


def finish(client: Client, id: str) -> Run:
    """Show a run's progress until it ends; end with exit code 1 when it did not succeed."""
    show_progress(client, id)
    run = client.run(id)
    if run.status != "SUCCESSFUL":
        screen.show_error(WorkflowError(f"{id} is {run.status}. {run.error or ''}"))
        screen.note(f"See `raysys runs show {id}`.")
        raise typer.Exit(1)
    return run


def show_progress(client: Client, id: str) -> None:
    """Show a run's events as they come: bars on a terminal, lines elsewhere."""
    if not screen.err.is_terminal:
        for event in client.follow(id):
            screen.note(line_of(event))
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen.err) as progress:
        bars: dict[str, Any] = {}
        for event in client.follow(id):
            if event.step not in bars:
                bars[event.step] = progress.add_task(event.step, total=event.total)
            progress.update(
                bars[event.step],
                description=escape(f"{event.step}: {event.message}"),
                completed=event.done,
                total=event.total,
            )


def line_of(event: Event) -> str:
    """Return an event as one line of text."""
    count = f" [{event.done}/{event.total}]" if event.total and event.done is not None else ""
    return f"{event.at:%H:%M:%S} {event.step}{count} {event.message}"
