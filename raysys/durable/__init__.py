"""Durable workflows in the words of Ray Workflows: the names that other modules use, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysys.durable.client import Client
from raysys.durable.context import notify, workflow_id
from raysys.durable.flow import Step, Workflow, step, workflow
from raysys.durable.hosting import WORKER, ensure_worker, stop_worker, wait_ready
from raysys.durable.vocabulary import (
    cancel,
    delete,
    get_metadata,
    get_output,
    get_output_async,
    get_status,
    list_all,
    resume,
    resume_all,
    resume_async,
    run,
    run_async,
    send_event,
    sleep,
    wait_for_event,
)
from raysys.records import Run, Schedule, StepRun

if TYPE_CHECKING:
    from raysys.settings import Settings

__all__ = [
    "WORKER",
    "Client",
    "Run",
    "Schedule",
    "Step",
    "StepRun",
    "Workflow",
    "cancel",
    "delete",
    "ensure_worker",
    "get_metadata",
    "get_output",
    "get_output_async",
    "get_status",
    "list_all",
    "migrate",
    "notify",
    "resume",
    "resume_all",
    "resume_async",
    "run",
    "run_async",
    "send_event",
    "sleep",
    "step",
    "stop_worker",
    "wait_for_event",
    "wait_ready",
    "workflow",
    "workflow_id",
]


def migrate(settings: Settings) -> None:
    """Make the workflow database, or bring it to this version; harmless to repeat, and safe with many callers."""
    from raysys.durable import (
        system,
    )  # DBOS costs a second to import, which a Ray task need not pay

    system.migrate(settings)
