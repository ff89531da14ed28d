"""The workflow engine of the worker: DBOS, and what a step does around its function. One a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, SetWorkflowTimeout
from dbos._context import get_local_dbos_context
from dbos._dbos import _get_dbos_instance
from dbos._error import DBOSWorkflowCancelledError
from msgspec.structs import replace

from raysys import cluster, db, log, tracing
from raysys.durable import codec, context, flow, queues, remote, system, ticks, work
from raysys.durable.context import Position
from raysys.durable.flow import Step, Workflow
from raysys.errors import RaysysError, Unavailable, WorkflowError
from raysys.records import Event, Schedule, revive
from raysys.settings import Settings
from raysys.store import events

THREADS = 64  # runs at once in one worker; each waits in a thread of its own
BASE_CONCURRENCY = 16  # runs at once of a workflow that is about no family
WAIT_SECONDS = 0.5
CANCEL_CHECK_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 300.0


class Engine:
    """Runs workflows in this process until it is closed. Use it as a context manager, or `open` and `close` it.

    Runs that an earlier process left are taken up again: their finished steps are not repeated.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = log.get("durable")
        self._stopping = threading.Event()
        self._events: sa.Engine | None = None
        self._system: sa.Engine | None = None

    def __enter__(self) -> Engine:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- life ------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Register every imported workflow and begin to run; raises Unavailable without its database."""
        system.migrate(self._settings)
        try:
            self._launch()
        except BaseException:
            self.close()
            raise

    def _launch(self) -> None:
        cluster.end_alone()  # what the worker before this one left: its runs begin these steps again
        self._events = db.open_engine(self._settings.database)
        self._system = system.open_sqlite(self._settings)
        DBOS(config=self._config())
        system.quiet()
        workflows = flow.registered()
        self._runners = {name: self._register(each) for name, each in workflows.items()}
        self._call = DBOS.workflow(name=queues.CALL)(
            lambda target, given: self._called(target, given)
        )
        DBOS.workflow(name=ticks.NAME)(lambda at, plan: self._on_tick(at, plan))
        DBOS.launch()
        system.quiet()
        DBOS.set_latest_application_version(system.VERSION)
        for each in workflows.values():
            self._register_queues(each)
        self._register_queue(ticks.NAME, ticks.CONCURRENCY)
        self._register_queue(queues.CALL, BASE_CONCURRENCY)
        self._tell_stranded()

    def _tell_stranded(self) -> None:
        active = ["PENDING", "ENQUEUED", "DELAYED"]
        for run in DBOS.list_workflows(status=active, load_input=False, load_output=False):
            if run.app_version not in (None, system.VERSION):
                self._log.warning(
                    "run.stranded",
                    workflow_id=run.workflow_id,
                    made_for=run.app_version,
                    runs=system.VERSION,
                    mend=f"raysys runs resume {run.workflow_id}",
                )

    def _config(self) -> DBOSConfig:
        config: DBOSConfig = {
            "name": system.APPLICATION,
            "system_database_url": self._settings.workflow_database,
            "application_version": system.VERSION,
            "executor_id": system.EXECUTOR,
            "max_executor_threads": THREADS,
            "serializer": system.JsonSerializer(),
            "log_level": "WARNING",
            "run_migrations": False,  # open() has done it, under a lock
            "use_listen_notify": not self._settings.workflow_database.startswith("sqlite"),
        }
        if self._system is not None:
            config["system_database_engine"] = self._system
        return config

    def close(self) -> None:
        """Stop: steps that run are abandoned, and done again by the next worker."""
        self._stopping.set()
        DBOS.destroy(destroy_registry=True)
        for engine in (self._system, self._events):
            if engine is not None:
                engine.dispose()

    def _register(self, workflow: Workflow[..., Any]) -> Callable[..., Any]:
        flow.target_of(workflow.function)

        def body(*args: Any, **kwargs: Any) -> Any:
            return self._run(workflow, args, kwargs)

        return DBOS.workflow(name=workflow.name)(body)

    def _register_queues(self, workflow: Workflow[..., Any]) -> None:
        from raysys import families

        if not workflow.about_family:
            self._register_queue(workflow.name, BASE_CONCURRENCY)
            return
        for family in self._settings.families or families.names():
            self._register_queue(queues.queue_of(workflow.name, [family]), workflow.concurrency)

    def _register_queue(self, name: str, concurrency: int) -> None:
        DBOS.register_queue(
            name,
            worker_concurrency=concurrency,
            polling_interval_sec=queues.POLL_SECONDS,
            on_conflict="always_update",
        )

    # -- runs ------------------------------------------------------------------------------------------------------

    def _run(
        self, workflow: Workflow[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        run_id = str(DBOS.workflow_id)
        what = f"Workflow {workflow.name}"
        family = queues.family_of(args) or ""
        began = time.monotonic()
        traced = tracing.span(
            f"run {workflow.name}", trace_of=run_id, workflow_id=run_id, family=family
        )
        with traced, context.in_run(self, run_id), log.bound(family=family):
            self._record(Position(workflow_id=run_id, number=0, step="run"), "started", kind="run")
            try:
                result = codec.outcome(workflow.function(*args, **kwargs), what)
            except Exception as error:
                failure = codec.translated(error, what)
                self._ended(run_id, failure)
                work.run_ended(workflow.name, family, "FAILED", time.monotonic() - began)
                if failure is error:
                    raise
                raise failure from error
            self._ended(run_id, None)
            work.run_ended(workflow.name, family, "SUCCESSFUL", time.monotonic() - began)
            return result

    def _called(self, target: str, args: Sequence[Any]) -> Any:
        found = cluster.load(target)
        if not isinstance(found, Workflow):
            raise WorkflowError(f"{target} is no workflow: decorate it with durable.workflow().")
        return self._run(found, args, {})

    def _ended(self, run_id: str, failure: RaysysError | None) -> None:
        position = Position(workflow_id=run_id, number=0, step="run")
        if failure is None:
            self._log.info("run.succeeded")
            self._record(position, "succeeded", kind="run")
            return
        self._log.error("run.failed", error=failure.message, exc_info=failure)
        self._record(position, f"failed: {failure.message}", kind="run")

    def call_workflow(
        self, workflow: Workflow[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Run `workflow` as a child of the running one, in the same thread."""
        runner = self._runners.get(workflow.name)
        if runner is None:
            return self._call(flow.target_of(workflow.function), list(args))
        if workflow.timeout_seconds is None:
            return runner(*args, **kwargs)
        with SetWorkflowTimeout(workflow.timeout_seconds):
            return runner(*args, **kwargs)

    # -- steps -----------------------------------------------------------------------------------------------------

    def run_step(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do `step` once: when the run has its result already, return that.

        What was a record comes back as that record.
        """
        try:
            result = DBOS.run_step({"name": step.name}, self._do, step, args, kwargs)
        except RaysysError as error:
            if step.catch_exceptions:
                return [None, error.message]
            raise
        if step.record is not None:
            result = revive(result, step.record)
        return [result, None] if step.catch_exceptions else result

    def _do(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        position = Position(
            workflow_id=str(DBOS.workflow_id), number=int(DBOS.step_id or 0), step=step.name
        )
        pause = step.retry_seconds
        for left in range(step.max_retries, -1, -1):
            try:
                return self._attempt(step, position, args, kwargs)
            except Exception as error:
                if not left or not _again(step, error):
                    raise
                self._record(position, f"again in {pause:g} s: {error}", kind="retry")
                self._pause(position.workflow_id, pause)
                pause = min(2 * pause, LONGEST_RETRY_SECONDS)
        raise AssertionError("unreachable")

    def _attempt(
        self,
        step: Step[..., Any],
        position: Position,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        began = time.monotonic()
        self._record(position, "started", kind="started", where=step.where)
        traced = tracing.span(f"step {step.name}", workflow_id=position.workflow_id)
        try:
            do = self._in_ray if step.where == "ray" else self._here
            with traced:
                where, result = do(step, position, args, kwargs)
        except Exception as error:
            failure = codec.translated(error, f"Step {step.name}")
            self._failed(position, failure, time.monotonic() - began)
            if failure is error:
                raise
            raise failure from error
        seconds = round(time.monotonic() - began, 3)
        work.step_ended(step.name, "SUCCESSFUL", seconds)
        self._record(position, "done", kind="done", where=where, seconds=seconds)
        self._measure(step, result, args, kwargs)
        return result

    def _measure(
        self, step: Step[..., Any], result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if step.measured is None:
            return
        given = result if step.record is None else revive(result, step.record)
        try:
            step.measured(given, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  the rim: a step is done, measured or not
            self._log.exception("step.not_measured", step=step.name, error=str(error))

    def _failed(self, position: Position, failure: RaysysError, seconds: float) -> None:
        self._log.error("step.failed", step=position.step, error=failure.message)
        work.step_ended(position.step, "FAILED", seconds)
        message = f"failed: {failure.message}"
        fields = {k: failure.fields[k] for k in ("error_type", "where") if k in failure.fields}
        self._record(position, message, kind="failed", seconds=round(seconds, 3), **fields)

    def _here(
        self,
        step: Step[..., Any],
        position: Position,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[str, Any]:
        with context.in_step(position, self._append):
            return "worker", codec.outcome(step.function(*args, **kwargs), f"Step {step.name}")

    def _in_ray(
        self,
        step: Step[..., Any],
        position: Position,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[str, Any]:
        submit = cluster.submit_alone if step.spawns else cluster.submit
        task = submit(
            f"{remote.__name__}:{remote.execute.__name__}",
            step.target,
            replace(position, traceparent=tracing.here()),
            args,
            kwargs,
            name=f"{position.workflow_id}:{step.name}",
            num_cpus=self._cpus(step),
            memory=step.memory,
            resources=step.resources,
            max_retries=step.max_retries,
        )
        self._await(task, step, position)
        outcome: remote.Outcome = task.result()
        if outcome.error is not None:
            raise codec.unpack(outcome.error)
        return outcome.where, outcome.result

    def _cpus(self, step: Step[..., Any]) -> float:
        if isinstance(step.num_cpus, str):
            return float(getattr(self._settings, step.num_cpus))
        return step.num_cpus

    def _await(self, task: cluster.Task, step: Step[..., Any], position: Position) -> None:
        began = checked = time.monotonic()
        while not task.wait(WAIT_SECONDS):
            now = time.monotonic()
            if step.timeout_seconds is not None and now - began > step.timeout_seconds:
                task.cancel()
                raise WorkflowError(
                    f"Step {step.name} took longer than its {step.timeout_seconds:g} s and was ended.",
                    step=step.name,
                )
            if now - checked >= CANCEL_CHECK_SECONDS:
                checked = now
                self._stop_when_cancelled(position, task)

    def _stop_when_cancelled(self, position: Position, task: cluster.Task) -> None:
        if self._stopping.is_set():
            task.cancel()
            raise DBOSWorkflowCancelledError(
                f"The worker stops; {position.step} is done again later."
            )
        if self.cancelled(position.workflow_id):
            task.cancel()
            self._record(position, "ended, because the run was cancelled", kind="cancelled")
            raise DBOSWorkflowCancelledError(f"Run {position.workflow_id} was cancelled.")

    # -- waiting ---------------------------------------------------------------------------------------------------

    def cancelled(self, run_id: str) -> bool:
        """Return whether the run was cancelled or deleted, or is another execution's by now.

        While the database does not answer, it was not.
        """
        ours = getattr(get_local_dbos_context(), "owner_xid", None)
        system_db = _get_dbos_instance()._sys_db
        table = system_db.tables.workflow_status
        query = sa.select(table.c.status, table.c.owner_xid).where(table.c.workflow_uuid == run_id)
        try:
            with system_db.engine.connect() as connection:
                row = connection.execute(query).one_or_none()
        except sa.exc.SQLAlchemyError:
            return False
        return (
            row is None or row.status == "CANCELLED" or (ours is not None and row.owner_xid != ours)
        )

    def _pause(self, run_id: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            stopped = self._stopping.wait(min(left, CANCEL_CHECK_SECONDS))
            if stopped or self.cancelled(run_id):
                raise DBOSWorkflowCancelledError(f"Run {run_id} stopped while it waited.")

    def sleep(self, run_id: str, seconds: float) -> None:
        """Wait until `seconds` after the first call, whatever restarts in between."""
        until = DBOS.run_step({"name": "sleep"}, lambda: time.time() + seconds)
        self._pause(run_id, until - time.time())

    def receive(self, run_id: str, topic: str, timeout_seconds: float | None) -> Any:
        """Return the next event of `topic` that was sent to this run; None when the time is over."""
        until = None
        if timeout_seconds is not None:
            until = DBOS.run_step({"name": "deadline"}, lambda: time.time() + timeout_seconds)
        # DBOS's own waiting does not see that the run was cancelled.
        DBOS.run_step({"name": "wait_for_event"}, self._await_event, run_id, topic, until)
        return DBOS.recv(topic, timeout_seconds=0)

    def _await_event(self, run_id: str, topic: str, until: float | None) -> None:
        while not self._arrived(run_id, topic):
            left = WAIT_SECONDS if until is None else until - time.time()
            if left <= 0:
                return
            self._pause(run_id, min(left, WAIT_SECONDS))

    def _arrived(self, run_id: str, topic: str) -> bool:
        system_db = _get_dbos_instance()._sys_db
        table = system_db.tables.notifications
        query = sa.select(table.c.topic).where(
            table.c.destination_uuid == run_id, table.c.topic == topic, ~table.c.consumed
        )
        try:
            with system_db.engine.connect() as connection:
                return connection.execute(query).first() is not None
        except sa.exc.SQLAlchemyError:
            return False  # while the database does not answer, nothing arrived

    def send(self, run_id: str, topic: str, value: Any) -> None:
        """Send an event to another run, once."""
        DBOS.send(run_id, codec.outcome(value, f"Event {topic}"), topic)

    # -- schedules -------------------------------------------------------------------------------------------------

    def apply(self, schedules: Sequence[Schedule]) -> None:
        """Make `schedules` the ones in force; keep which are paused, and make up one missed start of each."""
        ticks.apply(schedules)

    def _on_tick(self, scheduled_at: str, plan: Mapping[str, Any]) -> Any:
        run_id = str(DBOS.workflow_id)
        schedule = revive(dict(plan), Schedule)
        with context.in_run(self, run_id):
            reason = DBOS.run_step(
                {"name": "due"}, lambda: ticks.reason_to_wait(schedule, str(scheduled_at))
            )
            if reason:
                return {"skipped": reason}
            return {"started": ticks.enqueue(schedule, str(scheduled_at))}

    # -- history ---------------------------------------------------------------------------------------------------

    def _record(self, position: Position, message: str, **values: Any) -> None:
        self._append(context.event(position, message, **values))

    def _append(self, event: Event) -> None:
        context.tell(event)
        if self._events is None:
            return
        try:
            events.append(self._events, event)
        except Unavailable as error:  # a run does not fail because nobody could be told of it
            self._log.warning("event.lost", text=event.message, error=error.message)


def _again(step: Step[..., Any], error: Exception) -> bool:
    """Return whether the step is begun again after `error`. A lost task was tried again by Ray already."""
    lost = isinstance(error, WorkflowError) and bool(error.fields.get("lost"))
    return isinstance(error, step.retry_on) or (lost and step.spawns)
