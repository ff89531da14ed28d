"""Ray Workflows' verbs, for code that was written for it: each opens a client of the settings in force."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from raysys.durable import context
from raysys.durable.client import Client
from raysys.durable.flow import Workflow
from raysys.records import RunStatus
from raysys.settings import Settings


def run(workflow: Workflow[..., Any] | str, *args: Any, workflow_id: str | None = None) -> Any:
    """Start a run, wait for its end, and return what it gave."""
    with Client(Settings()) as client:
        return client.output(client.start(workflow, *args, workflow_id=workflow_id))


def run_async(
    workflow: Workflow[..., Any] | str, *args: Any, workflow_id: str | None = None
) -> str:
    """Start a run and return its id at once; `get_output` gives what it gave."""
    with Client(Settings()) as client:
        return client.start(workflow, *args, workflow_id=workflow_id)


def resume(workflow_id: str) -> Any:
    """Make a run go on, wait for its end, and return what it gave."""
    with Client(Settings()) as client:
        return client.output(client.resume(workflow_id))


def resume_async(workflow_id: str) -> str:
    """Make a run go on, and return its id at once."""
    with Client(Settings()) as client:
        return client.resume(workflow_id)


def resume_all(include_failed: bool = False) -> list[str]:
    """Make every run go on that is resumable; return their ids."""
    with Client(Settings()) as client:
        return client.resume_all(include_failed)


def list_all(status: RunStatus | set[RunStatus] | None = None) -> list[tuple[str, RunStatus]]:
    """Return the id and status of every run of these statuses, the oldest first."""
    wanted = {status} if isinstance(status, str) else status
    with Client(Settings()) as client:
        runs = client.list(limit=1_000_000, newest_first=False)
    return [(run.id, run.status) for run in runs if wanted is None or run.status in wanted]


def get_status(workflow_id: str) -> RunStatus:
    """Return the status of a run; raises NotFound."""
    with Client(Settings()) as client:
        return client.run(workflow_id).status


def get_output(workflow_id: str, *, timeout_seconds: float | None = None) -> Any:
    """Return what a run gave, waiting for its end; raises its error."""
    with Client(Settings()) as client:
        return client.output(workflow_id, timeout_seconds)


async def get_output_async(workflow_id: str) -> Any:
    """Return what a run gave, without blocking the event loop."""
    return await asyncio.to_thread(get_output, workflow_id)


def get_metadata(workflow_id: str) -> dict[str, Any]:
    """Return the status of a run, its name and arguments, and when it started and ended (Unix seconds)."""
    with Client(Settings()) as client:
        run = client.run(workflow_id)
    stats = {
        "start_time": run.started_at.timestamp() if run.started_at else None,
        "end_time": run.ended_at.timestamp() if run.ended_at else None,
    }
    return {"status": run.status, "name": run.name, "args": run.args, "stats": stats}


def cancel(workflow_id: str) -> None:
    """End a run."""
    _quietly(workflow_id, Client.cancel)


def delete(workflow_id: str) -> None:
    """Forget a run that has ended."""
    _quietly(workflow_id, Client.delete)


def _quietly(workflow_id: str, do: Callable[[Client, str], None]) -> None:
    with Client(Settings()) as client:
        do(client, workflow_id)


def send_event(workflow_id: str, topic: str, value: Any) -> None:
    """Send an event to a run, from the body of another run (then once and only once) or from anywhere."""
    found = context.running()
    if found is not None:
        found[0].send(workflow_id, topic, value)
        return
    with Client(Settings()) as client:
        client.send(workflow_id, topic, value)


def wait_for_event(topic: str, timeout_seconds: float | None = None) -> Any:
    """Wait in the body of a workflow for an event of `topic`; None when the time is over."""
    engine, run_id = context.body()
    return engine.receive(run_id, topic, timeout_seconds)


def sleep(seconds: float) -> None:
    """Wait in the body of a workflow; restarts do not begin the wait anew."""
    engine, run_id = context.body()
    engine.sleep(run_id, seconds)
