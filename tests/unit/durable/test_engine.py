from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from raysys import durable, tracing
from raysys.durable import Client, system, ticks, work
from raysys.durable import engine as engine_module
from raysys.durable.engine import Engine
from raysys.errors import Conflict, InvalidInput, NotFound, Unavailable
from raysys.records import Schedule
from raysys.settings import Settings
from tests.traces import traced
from tests.unit.durable import flows

pytestmark = pytest.mark.usefixtures("engine")


def test_run_ends_with_its_result_its_steps_and_its_story(client: Client) -> None:
    run_id = client.start("adding", 1, 2)
    assert client.output(run_id, 20) == 3
    run = client.run(run_id)
    assert (run.status, run.attempts, run.ended) == ("SUCCESSFUL", 1, True)
    assert [(s.name, s.output, s.where) for s in client.steps(run_id)] == [
        ("add", {"value": 3}, "worker")
    ]
    assert [event.message for event in client.follow(run_id)] == [
        "started",
        "started",
        "adding",
        "done",
        "succeeded",
    ]


def test_fork_replays_a_caught_error_as_the_same_class(client: Client) -> None:
    run_id = client.start("handling", "no")
    assert client.output(run_id, 20) == "no"
    forked = client.fork(run_id, step=2)
    assert client.output(forked, 20) == "no"
    assert flows.calls.count("refuse") == 1
    assert flows.calls.count("add") == 2


def test_database_that_comes_back_is_waited_for(client: Client) -> None:
    assert client.output(client.start("returning", 3), 20) == 4


def test_failed_run_does_its_failed_step_again_when_resumed(client: Client) -> None:
    run_id = client.start("returning", 7)
    with pytest.raises(Unavailable, match="away"):
        client.output(run_id, 20)
    assert client.run(run_id).error_type == "Unavailable"
    assert client.resume_all(include_failed=True) == [run_id]
    assert client.output(run_id, 20) == 8


def test_run_of_another_shape_is_resumable(client: Client, settings: Settings) -> None:
    run_id = client.start("adding", 2, 2)
    client.wait(run_id, 20)
    database = sa.create_engine(settings.workflow_database)
    with database.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE workflow_status SET status='PENDING', application_version='0' "
                "WHERE workflow_uuid=:id"
            ),
            {"id": run_id},
        )
    database.dispose()
    assert client.run(run_id).status == "RESUMABLE"
    assert client.list(status="RESUMABLE", limit=5)[0].id == run_id
    assert client.resume_all() == [run_id]
    assert client.output(run_id, 20) == 4
    assert flows.calls == ["add"]


def test_list_finds_runs_by_name_and_family(client: Client) -> None:
    run_id = client.start("about", "insurance")
    client.wait(run_id, 20)
    assert run_id.startswith("about-insurance-")
    assert [run.id for run in client.list(family="insurance")] == [run_id]
    assert client.list(name="about", family="atmos") == []


def test_start_is_idempotent_by_id(client: Client) -> None:
    assert client.start("adding", 1, 1, workflow_id="same") == "same"
    assert client.start("adding", 5, 5, workflow_id="same") == "same"
    assert client.output("same", 20) == 2


def test_waiting_too_short_says_that_the_run_goes_on(client: Client) -> None:
    client.start("adding", 1, 1, workflow_id="short")
    try:
        client.wait("short", 0.0)
    except Conflict as error:
        assert "It goes on" in error.message
    client.wait("short", 20)
    with pytest.raises(Conflict, match="has ended already"):
        client.cancel("short")
    client.delete("short")
    with pytest.raises(NotFound):
        client.steps("short")


def test_arguments_over_the_limit_are_refused_before_anything_starts(client: Client) -> None:
    from raysys.errors import WorkflowError

    with pytest.raises(WorkflowError, match="The arguments of adding gave"):
        client.start("adding", "x" * 200_000, 1)


def test_missed_moments_are_made_up_once(engine: Engine, client: Client) -> None:
    schedule = Schedule(name="hourly", workflow="adding", args=[3, 4], cron="0 * * * *")
    engine.apply([schedule])
    assert client.schedule("hourly").next_at is not None
    long_ago = datetime.now(UTC) - timedelta(days=3)
    client._dbos._sys_db.update_last_fired_at("hourly", long_ago.isoformat())
    engine.apply([schedule])
    engine.apply([schedule])
    runs = _settled(client, 1)
    assert [run.id for run in runs] == [ticks.run_id(schedule, _last_hour().isoformat())]
    with pytest.raises(NotFound, match="There are: hourly"):
        client.pause_schedule("daily")
    with pytest.raises(InvalidInput, match="more than 5 moments"):
        client.backfill_schedule("hourly", long_ago, datetime.now(UTC), limit=5)
    since = _last_hour() - timedelta(hours=2, minutes=30)
    filled = client.backfill_schedule("hourly", since, _last_hour())
    assert len(filled) == 3
    assert runs[0].id in filled
    engine.apply([])
    assert client.schedules() == []


def _last_hour() -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def _settled(client: Client, count: int) -> list[durable.Run]:
    deadline = time.monotonic() + 20
    while (
        len(runs := [r for r in client.list(name="adding") if r.id.startswith("hourly-")]) < count
    ):
        assert time.monotonic() < deadline
    return runs


def test_event_ends_a_wait_and_time_does(client: Client) -> None:
    run_id = client.start("listening", None)
    client.send(run_id, "news", [1, 2])
    assert client.output(run_id, 20) == [1, 2]
    assert client.output(client.start("listening", 0.01), 20) is None


def test_run_that_waits_for_an_event_notices_its_cancellation(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, ended = threading.Event(), threading.Event()
    wait = engine_module.Engine._await_event

    def watched(self: Engine, run_id: str, topic: str, until: float | None) -> None:
        waits.set()
        try:
            wait(self, run_id, topic, until)
        finally:
            ended.set()

    monkeypatch.setattr(engine_module.Engine, "_await_event", watched)
    run_id = client.start("listening", None)
    assert waits.wait(10)
    client.cancel(run_id)
    assert ended.wait(5), "its thread still waits"
    assert client.run(run_id).status == "CANCELED"


def test_runs_and_steps_are_counted_by_their_outcome(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[str, ...]] = []
    monkeypatch.setattr(work, "run_ended", lambda *of: counted.append(("run", *of[:3])))
    monkeypatch.setattr(work, "step_ended", lambda *of: counted.append(("step", *of[:2])))
    client.wait(client.start("adding", 1, 1), 20)
    with pytest.raises(Conflict):
        client.output(client.start("refusing"), 20)
    assert counted == [
        ("step", "add", "SUCCESSFUL"),
        ("run", "adding", "", "SUCCESSFUL"),
        ("step", "refuse", "FAILED"),
        ("run", "refusing", "", "FAILED"),
    ]


def test_a_run_and_its_steps_are_one_trace(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with traced() as traces:
        monkeypatch.setattr(tracing, "tracer", lambda: traces.tracer)
        run_id = client.start("adding", 1, 1)
        client.wait(run_id, 20)
        spans = traces.spans()
    run, step = spans["run adding"], spans["step add"]
    assert run.context.trace_id == tracing.trace_of_id(run_id)
    assert step.parent.span_id == run.context.span_id
    assert step.attributes == {"raysys.workflow_id": run_id}


def test_client_without_a_database_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="Run `raysys up` once"):
        Client(Settings(home=tmp_path / "nothing"))


def test_workflow_database_is_in_wal_mode(settings: Settings) -> None:
    system.migrate(settings)
    database = sa.create_engine(settings.workflow_database)
    with database.connect() as connection:
        assert connection.execute(sa.text("PRAGMA journal_mode")).scalar() == "wal"
    database.dispose()
