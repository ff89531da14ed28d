"""What every process but the worker does with runs: start them, watch them, end them. It runs no workflow."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sa
from msgspec.structs import replace

from raysys import db
from raysys.artifacts import Artifacts
from raysys.durable import codec, flow, journal, queues
from raysys.durable.flow import Workflow
from raysys.errors import Conflict, InvalidInput, NotFound, RaysysError, WorkflowError
from raysys.records import Event, Run, RunStatus, Schedule, StepRun
from raysys.settings import Settings
from raysys.store import events

if TYPE_CHECKING:
    from dbos import DBOSClient, StepInfo, WorkflowStatus

FIRST_POLL_SECONDS = 0.05
POLL_SECONDS = 0.5
PAGE = 100
ALL_STEPS = 1_000_000_000  # a step number after every other: a rewind from there repeats nothing
BACKFILL_LIMIT = 31
# `list` is a method here.
Steps: TypeAlias = list[StepRun]
Events: TypeAlias = list[Event]
Told: TypeAlias = list[tuple[int, Event]]
Schedules: TypeAlias = list[Schedule]
Ids: TypeAlias = list[str]
Lines: TypeAlias = list[str]
_STATUS: dict[str, RunStatus] = {
    "ENQUEUED": "PENDING",
    "DELAYED": "PENDING",
    "PENDING": "RUNNING",
    "SUCCESS": "SUCCESSFUL",
    "ERROR": "FAILED",
    "CANCELLED": "CANCELED",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "RESUMABLE",
}


class Client:
    """A window on the workflow database. Use it as a context manager, or `close` it.

    Works while the worker is down: what is started waits for it. Raises Unavailable when the database does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        from dbos import DBOSClient

        from raysys.durable import system

        system.quiet()
        self._settings = settings
        self._version = system.VERSION
        self._events = db.open_engine(settings.database)
        self._artifacts = Artifacts(settings.artifact_root)
        self._system = system.open_sqlite(settings)
        self._dbos: DBOSClient = DBOSClient(
            system_database_url=settings.workflow_database,
            system_database_engine=self._system,
            serializer=system.JsonSerializer(),
            application_name=system.APPLICATION,
            lazy=True,
            retry_connection_errors=False,
        )
        try:
            system.check(settings, self._dbos._sys_db.engine)
        except RaysysError:
            self.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._dbos.destroy()
        if self._system is not None:
            self._system.dispose()
        self._events.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from dbos._error import DBOSException, DBOSNonExistentWorkflowError

        from raysys.durable import system

        try:
            yield
        except DBOSNonExistentWorkflowError as error:
            raise NotFound(
                f"There is no run like that: {error}. See `raysys runs list`."
            ) from error
        except DBOSException as error:
            raise Conflict(str(error)) from error
        except sa.exc.OperationalError as error:
            raise system.unavailable(self._settings, error) from error

    # -- starting --------------------------------------------------------------------------------------------------

    def start(
        self,
        workflow: str | Workflow[..., Any],
        *args: Any,
        workflow_id: str | None = None,
        dedup: str | None = None,
        deadline_seconds: float | None = None,
    ) -> str:
        """Start a workflow, by its name or itself, with `args`; return the id of the run, at once.

        One that the worker does not know by name is imported there from the module that defines it.
        The same `workflow_id` twice is one run; so is the same `dedup` while the first of them waits or runs.
        At the deadline, counted from the start of its work, the run is cancelled.
        """
        name = workflow if isinstance(workflow, str) else workflow.name
        plain_args = codec.outcome(list(args), f"The arguments of {name}")
        chosen_id = workflow_id or queues.new_id(name, plain_args)
        if not isinstance(workflow, str):
            deadline_seconds = deadline_seconds or workflow.timeout_seconds
            if not self._known(name):
                plain_args = [flow.target_of(workflow.function), plain_args]
                name = queues.CALL
        queue = self._queue(name, plain_args)
        options: dict[str, Any] = {
            "workflow_name": name,
            "queue_name": queue,
            "workflow_id": chosen_id,
            "deduplication_id": dedup,
            "duplication_policy": "return-existing" if dedup else None,
            "workflow_timeout": deadline_seconds,
        }
        with self._translated():
            chosen: Any = {key: value for key, value in options.items() if value is not None}
            return str(self._dbos.enqueue(chosen, *plain_args).get_workflow_id())

    def _queue(self, name: str, args: Sequence[Any]) -> str:
        queue = queues.queue_of(name, args)
        with self._translated():
            if self._dbos.retrieve_queue(queue) is None:
                self._refuse_unknown(name)
                # Nobody listens to a queue that was never registered, and the run would wait for ever.
                self._dbos.register_queue(
                    queue,
                    worker_concurrency=1,
                    polling_interval_sec=queues.POLL_SECONDS,
                    on_conflict="never_update",
                )
        return queue

    def _known(self, name: str) -> bool:
        with self._translated():
            return name in self._workflows()

    def _workflows(self) -> set[str]:
        named = {queue.name.partition(".")[0] for queue in self._dbos.list_queues()}
        return named - {queues.INTERNAL.rstrip("."), queues.CALL}

    def _refuse_unknown(self, name: str) -> None:
        known = self._workflows()
        if name == queues.CALL:
            return
        if known and name not in known:
            raise NotFound(
                f"There is no workflow {name!r}. The worker knows: {', '.join(sorted(known))}.",
                workflow=name,
            )

    # -- watching --------------------------------------------------------------------------------------------------

    def run(self, workflow_id: str) -> Run:
        """Return the run; raises NotFound."""
        run = self._run(self._row(workflow_id))
        if run.attempts < 2:
            return run
        told = self.events(workflow_id)  # the engine only knows when the last attempt began
        return replace(run, started_at=told[0][1].at) if told else run

    status = run

    def _row(self, workflow_id: str) -> WorkflowStatus:
        with self._translated():
            rows = self._dbos.list_workflows(workflow_ids=[workflow_id])
        if not rows:
            raise NotFound(
                f"There is no run {workflow_id!r}. See `raysys runs list`.", workflow_id=workflow_id
            )
        return rows[0]

    def list(
        self,
        *,
        name: str | None = None,
        family: str | None = None,
        status: str | None = None,
        limit: int = 50,
        newest_first: bool = True,
    ) -> list[Run]:
        """Return at most `limit` runs that fit, the newest first."""
        found: list[Run] = []
        for row in self._rows(name, newest_first):
            run = self._run(row)
            internal = run.name.startswith(queues.INTERNAL) and name is None
            fits = (family is None or run.family == family) and (status in (None, run.status))
            if fits and not internal:
                found.append(run)
            if len(found) == limit:
                break
        return found

    def history(self) -> Iterator[Run]:
        """Yield every run, newest first, those of the engine itself too."""
        return (self._run(row) for row in self._rows(None, newest_first=True))

    def _rows(self, name: str | None, newest_first: bool) -> Iterator[WorkflowStatus]:
        offset = 0
        while True:
            with self._translated():
                rows = self._dbos.list_workflows(
                    name=name,
                    limit=PAGE,
                    offset=offset,
                    sort_desc=newest_first,
                )
            yield from rows
            if len(rows) < PAGE:
                return
            offset += PAGE

    def _run(self, row: WorkflowStatus) -> Run:
        args = list(row.input["args"]) if isinstance(row.input, dict) else []
        name = row.name
        if name == queues.CALL and len(args) == 2:
            name, args = args
        return Run(
            id=row.workflow_id,
            name=name,
            status=self._status(row),
            args=args,
            family=queues.family_of(args),
            created_at=_moment(row.created_at) or datetime.now(UTC),
            started_at=_moment(row.dequeued_at),
            ended_at=_moment(row.completed_at),
            deadline=_moment(row.workflow_deadline_epoch_ms),
            attempts=int(row.recovery_attempts or 0),
            output=row.output,
            error=_text(row.error),
            error_type=type(row.error).__name__ if row.error is not None else None,
            schedule=row.schedule_name,
            forked_from=row.forked_from,
            parent=row.parent_workflow_id,
        )

    def _status(self, row: WorkflowStatus) -> RunStatus:
        status = _STATUS[row.status]
        stranded = row.app_version not in (None, self._version)
        return "RESUMABLE" if stranded and status in ("PENDING", "RUNNING") else status

    def steps(self, workflow_id: str) -> Steps:
        """Return the steps of the run, in order: the ended ones, and those that run now."""
        self._row(workflow_id)
        with self._translated():
            done = {row["function_id"]: row for row in self._dbos.list_workflow_steps(workflow_id)}
        told: dict[int, Events] = {}
        for _, event in self.events(workflow_id):
            if number := event.fields.get("number"):
                told.setdefault(int(number), []).append(event)
        return [_step(n, done.get(n), told.get(n, [])) for n in sorted({*done, *told})]

    def events(self, workflow_id: str, after: int = 0) -> Told:
        """Return what the run told after the event numbered `after`, with the numbers."""
        return events.after(self._events, workflow_id, after)

    def log(self, workflow_id: str, lines: int = 20) -> tuple[str, Lines] | None:
        """Return the address and the last lines of what the run's latest step wrote; None before its first."""
        names = journal.names(self._artifacts, workflow_id)
        if not names:
            return None
        text = journal.read(self._artifacts, workflow_id, names[-1])
        return journal.uri(self._artifacts, workflow_id, names[-1]), text.splitlines()[-lines:]

    def follow(
        self,
        workflow_id: str,
        *,
        timeout_seconds: float | None = None,
        interval_seconds: float = POLL_SECONDS,
        after: int = 0,
    ) -> Iterator[Event]:
        """Yield what the run tells, until it has ended or the time is over.

        Silence is asked about less and less often, at last every `interval_seconds`.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        tick, pause = threading.Event(), FIRST_POLL_SECONDS
        while True:
            ended = self.run(
                workflow_id
            ).ended  # asked first, so that no event comes after the last look
            for number, event in self.events(workflow_id, after):
                after, pause = number, FIRST_POLL_SECONDS
                yield event
            if ended or (deadline is not None and time.monotonic() >= deadline):
                return
            tick.wait(min(pause, interval_seconds))
            pause *= 1.5

    def wait(
        self,
        workflow_id: str,
        timeout_seconds: float | None = None,
        on_event: Callable[[Event], Any] | None = None,
    ) -> Run:
        """Wait until the run has ended and return it; raises Conflict when the time is over before."""
        for event in self.follow(workflow_id, timeout_seconds=timeout_seconds):
            if on_event is not None:
                on_event(event)
        run = self.run(workflow_id)
        if not run.ended:
            raise Conflict(
                f"Run {workflow_id} is still {run.status} after {timeout_seconds:g} s. It goes on; "
                f"see `raysys runs show {workflow_id}`.",
                workflow_id=workflow_id,
                status=run.status,
            )
        return run

    def output(self, workflow_id: str, timeout_seconds: float | None = None) -> Any:
        """Return what the run gave, waiting for its end; raises its error, of the class it was raised with."""
        run = self.wait(workflow_id, timeout_seconds)
        if run.status == "SUCCESSFUL":
            return run.output
        error = self._row(workflow_id).error
        if isinstance(error, Exception):
            raise error
        raise WorkflowError(
            f"Run {workflow_id} is {run.status}: it gave nothing. `raysys runs resume {workflow_id}` makes it go on.",
            workflow_id=workflow_id,
            status=run.status,
        )

    # -- changing --------------------------------------------------------------------------------------------------

    def cancel(self, workflow_id: str) -> None:
        """End the run and its children; a Ray task that works for it is ended within seconds."""
        run = self.run(workflow_id)
        if run.ended and run.status != "RESUMABLE":
            raise Conflict(f"Run {workflow_id} has ended already: {run.status}.", status=run.status)
        with self._translated():
            self._dbos.cancel_workflow(workflow_id, cancel_children=True)

    def resume(self, workflow_id: str) -> str:
        """Make a run go on that was cancelled, failed or is resumable; nothing happens to any other.

        What is finished is kept. A failed run does its last failed step again.
        """
        row = self._row(workflow_id)
        run = self._run(row)
        queue = self._queue(row.name, run.args)
        with self._translated():
            if run.status == "FAILED":
                self._rewind(workflow_id, self._last_failed_step(workflow_id), queue)
            elif run.status in ("CANCELED", "RESUMABLE"):
                if row.status in ("ENQUEUED", "DELAYED", "PENDING"):
                    self._dbos.cancel_workflow(workflow_id)
                self._rewind(workflow_id, ALL_STEPS, queue)
        return workflow_id

    def _rewind(self, workflow_id: str, step: int, queue: str) -> None:
        self._dbos.rewind_workflow(
            workflow_id,
            start_step=step,
            application_version=self._version,
            queue_name=queue,
        )

    def _last_failed_step(self, workflow_id: str) -> int:
        rows = self._dbos.list_workflow_steps(workflow_id)
        failed = [row["function_id"] for row in rows if row["error"] is not None]
        return max(failed, default=ALL_STEPS)

    def resume_all(self, include_failed: bool = False) -> Ids:
        """Resume every resumable run (and every failed one, if told so); return their ids."""
        wanted = {"RESUMABLE", *(["FAILED"] if include_failed else [])}
        runs = [self._run(row) for row in self._rows(None, newest_first=False)]
        return [self.resume(run.id) for run in runs if run.status in wanted]

    def fork(self, workflow_id: str, step: int | None = None, new_id: str | None = None) -> str:
        """Start a new run with the arguments and the finished steps of another, from step number `step` on.

        Without `step` it begins at the last failed one, or at the first.
        """
        from dbos import SetWorkflowID

        row = self._row(workflow_id)
        run = self._run(row)
        if step is None:
            last = self._last_failed_step(workflow_id)
            step = 1 if last == ALL_STEPS else last
        if step < 1:
            raise InvalidInput(
                "Steps are counted from 1.", issues=[{"loc": ["step"], "reason": "below 1"}]
            )
        with self._translated(), SetWorkflowID(new_id or queues.new_id(run.name, run.args)):
            handle = self._dbos.fork_workflow(
                workflow_id,
                step,
                application_version=self._version,
                queue_name=self._queue(row.name, run.args),
            )
            return str(handle.get_workflow_id())

    def delete(self, workflow_id: str) -> None:
        """Forget a run that has ended; raises Conflict while it goes on."""
        run = self.run(workflow_id)
        if not run.ended:
            raise Conflict(
                f"Run {workflow_id} is {run.status}: cancel it first.", status=run.status
            )
        with self._translated():
            self._dbos.delete_workflow(workflow_id)

    def send(self, workflow_id: str, topic: str, value: Any) -> None:
        """Send an event to a run that waits for `topic`, or will."""
        self._row(workflow_id)
        with self._translated():
            self._dbos.send(workflow_id, codec.outcome(value, f"Event {topic}"), topic)

    # -- schedules -------------------------------------------------------------------------------------------------

    def schedules(self) -> Schedules:
        """Return every schedule in force, by name."""
        from raysys.durable import ticks

        with self._translated():
            rows = self._dbos.list_schedules()
        return sorted((ticks.schedule_of(row) for row in rows), key=lambda each: each.name)

    def schedule(self, name: str) -> Schedule:
        """Return one schedule; raises NotFound with the names there are."""
        every = {each.name: each for each in self.schedules()}
        if name not in every:
            raise NotFound(
                f"There is no schedule {name!r}. There are: {', '.join(every) or 'none yet'}.",
                schedule=name,
            )
        return every[name]

    def pause_schedule(self, name: str) -> None:
        """Let the schedule start nothing until it is resumed."""
        self.schedule(name)
        with self._translated():
            self._dbos.pause_schedule(name)

    def resume_schedule(self, name: str) -> None:
        """Let a paused schedule go on with its next moment."""
        self.schedule(name)
        with self._translated():
            self._dbos.resume_schedule(name)

    def trigger_schedule(self, name: str) -> str:
        """Start the schedule's run now, paused or not; while one of it waits or runs, return that one's id."""
        from raysys.durable import ticks

        schedule = self.schedule(name)
        return self.start(schedule.workflow, *schedule.args, dedup=ticks.dedup_key(schedule))

    def backfill_schedule(
        self, name: str, since: datetime, until: datetime, limit: int = BACKFILL_LIMIT
    ) -> Ids:
        """Start a run for each moment of the schedule in (since, until]; those that ran already are left.

        Raises InvalidInput when these are more than `limit`.
        """
        from raysys.durable import ticks

        schedule = self.schedule(name)
        moments = []
        for moment in ticks.between(schedule.cron, schedule.zone, since, until):
            moments.append(moment)
            if len(moments) > limit:
                raise InvalidInput(
                    f"{name} has more than {limit} moments in that time. Ask for a shorter one.",
                    issues=[{"loc": ["since"], "reason": f"more than {limit} runs"}],
                )
        return [
            self.start(
                schedule.workflow,
                *schedule.args,
                workflow_id=ticks.run_id(schedule, moment.isoformat()),
            )
            for moment in moments
        ]


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _text(error: Any) -> str | None:
    if error is None:
        return None
    return error.message if isinstance(error, RaysysError) else str(error)


def _step(number: int, row: StepInfo | None, told: Sequence[Event]) -> StepRun:
    kinds = Counter(event.fields.get("kind") for event in told)
    places = [event.fields["where"] for event in told if "where" in event.fields]
    tasks = [event.fields["ray_task"] for event in told if "ray_task" in event.fields]
    task_id = tasks[-1] if tasks else None
    started = next((event.at for event in told if event.fields.get("kind") == "started"), None)
    if row is None:
        last = told[-1].fields.get("kind")
        return StepRun(
            number=number,
            name=told[0].step,
            status="CANCELED" if last == "cancelled" else "RUNNING",
            attempts=max(kinds["started"], kinds["running"]),
            started_at=started,
            where=places[-1] if places else None,
            task_id=task_id,
        )
    began, ended = _moment(row["started_at_epoch_ms"]), _moment(row["completed_at_epoch_ms"])
    return StepRun(
        number=number,
        name=row["function_name"],
        status="FAILED" if row["error"] is not None else "SUCCESSFUL",
        attempts=max(kinds["started"], kinds["running"], 1),
        started_at=started or began,
        ended_at=ended,
        seconds=(ended - began).total_seconds() if began and ended else None,
        where=places[-1] if places else None,
        task_id=task_id,
        output=row["output"],
        error=_text(row["error"]),
        child=row["child_workflow_id"],
    )
