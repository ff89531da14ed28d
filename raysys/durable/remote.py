"""The body of the Ray task that does a step: it reports, calls the function, and packs the outcome."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import sqlalchemy as sa

from raysys import cluster, db, log, tracing
from raysys.artifacts import Artifacts
from raysys.durable import codec, context, journal
from raysys.durable.context import Position
from raysys.errors import Unavailable
from raysys.records import Event, Record
from raysys.settings import Settings
from raysys.store import events


class Outcome(Record, frozen=True):
    """What a Ray task gives back: the step's result or its packed error, and where it ran."""

    where: str
    task_id: str
    result: Any = None
    error: dict[str, Any] | None = None
    trace: str | None = None


@cache
def _engine(url: str) -> sa.Engine:
    # One a process, never closed: Ray keeps the process for the next step, and ends it without asking.
    return db.open_engine(url)


@cache
def _settings() -> Settings:
    settings = Settings()
    log.configure(settings)
    return settings


def append(event: Event) -> None:
    """Append `event` to the application's database, or log that it was lost."""
    context.tell(event)
    try:
        events.append(_engine(_settings().database), event)
    except Unavailable as error:  # a step does not fail because nobody could be told of it
        log.get("step").warning("event.lost", text=event.message, error=error.message)


def execute(
    target: str, position: Position, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Outcome:
    """Do the step that `target` names, in this process; its error is returned, never raised."""
    traced = tracing.span(
        f"task {position.step}", parent=position.traceparent, workflow_id=position.workflow_id
    )
    try:
        with traced:
            return _execute(target, position, args, kwargs)
    finally:
        tracing.flush()


def _execute(
    target: str, position: Position, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Outcome:
    import traceback

    place = cluster.place()
    where = f"{place.node}:{place.pid}"
    logger = log.get("step")
    keeping = journal.kept(Artifacts(_settings().artifact_root), position)
    with keeping, context.in_step(position, append):
        context.notify("running", kind="running", where=where, ray_task=place.task_id)
        logger.info("step.running", where=where, thread=threading.current_thread().name)
        try:
            result = codec.outcome(
                cluster.load(target).function(*args, **kwargs), f"Step {position.step}"
            )
        except Exception as error:  # the rim: it goes to the worker as data
            logger.exception("step.failed", error=str(error))
            packed = codec.pack(codec.translated(error, f"Step {position.step}"))
            cause = type(error).__name__
            return Outcome(
                where=where,
                task_id=place.task_id,
                error={**packed, "cause": cause},
                trace=traceback.format_exc(limit=-8),
            )
    return Outcome(where=where, task_id=place.task_id, result=result)
