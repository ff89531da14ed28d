"""What runs on this thread: the run and step that the code belongs to, and how it reports; no engine here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from raysys import log
from raysys.errors import WorkflowError
from raysys.records import Event, Record

if TYPE_CHECKING:
    from raysys.durable.engine import Engine

Append = Callable[[Event], Any]


class Position(Record, frozen=True):
    """A step of a run: the run's id, the step's number and name, and the `traceparent` of its attempt."""

    workflow_id: str
    number: int
    step: str
    traceparent: str = ""


class _Step:
    def __init__(self, position: Position, append: Append) -> None:
        self.position = position
        self.append = append


_run: ContextVar[tuple[Engine, str] | None] = ContextVar("raysys_run", default=None)
_step: ContextVar[_Step | None] = ContextVar("raysys_step", default=None)


@contextmanager
def in_run(engine: Engine, workflow_id: str) -> Iterator[None]:
    """Make the code inside the block the body of the run `workflow_id`."""
    token = _run.set((engine, workflow_id))
    try:
        with log.bound(workflow_id=workflow_id):
            yield
    finally:
        _run.reset(token)


@contextmanager
def in_step(position: Position, append: Append) -> Iterator[None]:
    """Make the code inside the block a step, whose progress goes to `append`."""
    token = _step.set(_Step(position, append))
    try:
        with log.bound(workflow_id=position.workflow_id, step=position.step):
            yield
    finally:
        _step.reset(token)


def running() -> tuple[Engine, str] | None:
    """Return the engine and run whose body this is, or None outside a run and inside a step."""
    return None if _step.get() is not None else _run.get()


def body() -> tuple[Engine, str]:
    """Return the engine and run whose body this is; raises WorkflowError elsewhere."""
    found = running()
    if found is None:
        raise WorkflowError("This works only in the body of a workflow, not in a step or outside.")
    return found


def workflow_id() -> str:
    """Return the id of the run that this code belongs to; raises WorkflowError outside one."""
    step, run = _step.get(), _run.get()
    if step is not None:
        return step.position.workflow_id
    if run is None:
        raise WorkflowError("There is no workflow here: this code was not started by the worker.")
    return run[1]


def notify(
    message: str, *, done: int | None = None, total: int | None = None, **fields: Any
) -> None:
    """Report progress from inside a step: one line in the run's history. Outside a run nothing happens."""
    step = _step.get()
    if step is not None:
        step.append(event(step.position, message, done=done, total=total, **fields))


TAKEN = ("event", "part", "level", "timestamp", "pid", "workflow_id", "step", "text")


def tell(event: Event) -> None:
    """Log an event of a run, with the ids that it names."""
    said = {key: value for key, value in event.fields.items() if key not in TAKEN}
    ids = {"workflow_id": event.workflow_id, "step": event.step, "text": event.message}
    log.get("run").info("progress", **said, **ids)


def event(position: Position, message: str, **values: Any) -> Event:
    """Return an event of the step at `position`; values that are no field of an event go to its `fields`."""
    done, total = values.pop("done", None), values.pop("total", None)
    return Event(
        workflow_id=position.workflow_id,
        at=datetime.now(UTC),
        step=position.step,
        message=message,
        done=done,
        total=total,
        fields={"number": position.number, **values},
    )
