"""Runs in a real worker on a real cluster: what they survive, and what is told about them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raysys import db, durable
from raysys.durable import Client
from raysys.errors import Conflict, NotFound, WorkflowError
from raysys.settings import Settings

TARGET = "durable_flows:Worker"


@pytest.fixture(scope="module")
def client(cluster: Settings) -> Iterator[Client]:
    db.migrate(cluster)
    durable.migrate(cluster)
    durable.ensure_worker(cluster, TARGET)
    durable.wait_ready(cluster, 60, TARGET)
    with Client(cluster) as client:
        yield client
    durable.stop_worker(cluster)


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.05)


def begun(folder: Path, name: str) -> int:
    return len(list(folder.glob(f"{name}-*")))


def go(folder: Path) -> None:
    (folder / "go").touch()


def test_run_gives_what_its_workflow_returns_and_tells_its_steps(
    client: Client, tmp_path: Path
) -> None:
    go(tmp_path)
    run_id = client.start("three", str(tmp_path))
    assert client.output(run_id, 30) == [1, 1, 1]
    run = client.run(run_id)
    assert (run.status, run.name, run.args) == ("SUCCESSFUL", "three", [str(tmp_path)])
    steps = client.steps(run_id)
    assert [(s.number, s.name, s.status, s.attempts) for s in steps] == [
        (1, "remember", "SUCCESSFUL", 1),
        (2, "hold", "SUCCESSFUL", 1),
        (3, "here", "SUCCESSFUL", 1),
    ]
    assert ":" in str(steps[0].where)
    assert steps[2].where == "worker"
    messages = [event.message for _, event in client.events(run_id)]
    assert "half" in messages
    assert messages[-1] == "succeeded"


def test_killed_worker_goes_on_without_repeating_finished_steps(
    client: Client, cluster: Settings, tmp_path: Path
) -> None:
    run_id = client.start("three", str(tmp_path))
    until(lambda: begun(tmp_path, "two"))
    os.kill(durable.wait_ready(cluster, 30, TARGET)["pid"], signal.SIGKILL)
    until(lambda: begun(tmp_path, "two") == 2, 60)
    go(tmp_path)
    assert client.output(run_id, 60) == [1, 2, 1]
    assert begun(tmp_path, "one") == 1
    assert client.steps(run_id)[1].attempts == 2


def test_killed_task_is_begun_again(client: Client, tmp_path: Path) -> None:
    run_id = client.start("three", str(tmp_path))
    until(lambda: begun(tmp_path, "two"))
    pid = int(next(tmp_path.glob("two-*")).name.rsplit("-", 1)[1])
    os.kill(pid, signal.SIGKILL)
    until(lambda: begun(tmp_path, "two") == 2)
    go(tmp_path)
    assert client.output(run_id, 30) == [1, 2, 1]


def test_cancel_ends_the_task_and_frees_its_cpu(client: Client, tmp_path: Path) -> None:
    import ray

    run_id = client.start("three", str(tmp_path))
    until(lambda: begun(tmp_path, "two"))
    until(lambda: ray.available_resources().get("CPU", 0) == 3)
    began = time.monotonic()
    client.cancel(run_id)
    until(lambda: ray.available_resources().get("CPU", 0) == 4, 5)
    assert time.monotonic() - began < 5
    assert client.run(run_id).status == "CANCELED"
    with pytest.raises(Conflict):
        client.cancel(run_id)


def test_resumed_run_keeps_its_finished_steps(client: Client, tmp_path: Path) -> None:
    run_id = client.start("three", str(tmp_path))
    until(lambda: begun(tmp_path, "two"))
    client.cancel(run_id)
    go(tmp_path)
    client.resume(run_id)
    assert client.output(run_id, 30)[0] == 1
    assert begun(tmp_path, "one") == 1


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("lost", NotFound, "There is no thing."),
        ("broken", WorkflowError, "Step broken failed: ZeroDivisionError: by zero"),
        ("large", WorkflowError, "at most 100,000 go through the database"),
        ("slow", WorkflowError, "took longer than its 1.5 s"),
    ],
)
def test_failure_reaches_the_caller_with_its_class_and_words(
    client: Client, kind: str, error: type[Exception], text: str
) -> None:
    run_id = client.start("failing", kind)
    with pytest.raises(error, match=text):
        client.output(run_id, 30)
    run = client.run(run_id)
    assert run.status == "FAILED"
    assert text in str(run.error)
    assert client.steps(run_id)[-1].status == "FAILED"


def test_step_is_tried_again_for_the_errors_it_names(client: Client, tmp_path: Path) -> None:
    run_id = client.start("retried", str(tmp_path))
    assert client.output(run_id, 30) == [3, [None, "Step caught failed: ValueError: caught"]]


def test_nested_workflow_is_a_run_of_its_own(client: Client, tmp_path: Path) -> None:
    run_id = client.start("nested", str(tmp_path))
    assert client.output(run_id, 30) == [1, 1]
    children = [run for run in client.list(name="inner") if run.parent == run_id]
    assert [child.status for child in children] == ["SUCCESSFUL"]


def test_fork_repeats_only_the_later_steps(client: Client, tmp_path: Path) -> None:
    go(tmp_path)
    first = client.start("three", str(tmp_path))
    client.wait(first, 30)
    second = client.fork(first, 3)
    assert client.output(second, 30) == [1, 1, 2]
    assert client.run(second).forked_from == first


def test_run_sleeps_and_waits_for_an_event(client: Client) -> None:
    run_id = client.start("waiting", 0.2)
    client.send(run_id, "news", {"temperature": 21.5})
    assert client.output(run_id, 30) == {"temperature": 21.5}


def test_same_dedup_is_one_run_while_the_first_goes_on(client: Client, tmp_path: Path) -> None:
    first = client.start("three", str(tmp_path), dedup="one")
    assert client.start("three", str(tmp_path), dedup="one") == first
    go(tmp_path)
    client.wait(first, 30)
    assert client.start("three", str(tmp_path), dedup="one") != first


def test_deadline_cancels_the_run(client: Client, tmp_path: Path) -> None:
    run_id = client.start("three", str(tmp_path), deadline_seconds=2)
    assert client.wait(run_id, 30).status == "CANCELED"


def test_unknown_workflow_and_run_are_refused(client: Client) -> None:
    with pytest.raises(NotFound, match=r"The worker knows: .*three"):
        client.start("nonsense")
    with pytest.raises(NotFound, match="There is no run"):
        client.run("nonsense")


def test_delete_forgets_an_ended_run_only(client: Client, tmp_path: Path) -> None:
    run_id = client.start("three", str(tmp_path))
    until(lambda: begun(tmp_path, "two"))
    with pytest.raises(Conflict):
        client.delete(run_id)
    go(tmp_path)
    client.wait(run_id, 30)
    client.delete(run_id)
    with pytest.raises(NotFound):
        client.run(run_id)


def test_ray_workflows_verbs_work(client: Client, tmp_path: Path) -> None:
    import durable_flows

    go(tmp_path)
    assert durable.run(durable_flows.three, str(tmp_path), workflow_id="verbs") == [1, 1, 1]
    assert durable.get_status("verbs") == "SUCCESSFUL"
    assert durable.get_output("verbs") == [1, 1, 1]
    assert durable.get_metadata("verbs")["stats"]["end_time"] is not None
    assert ("verbs", "SUCCESSFUL") in durable.list_all("SUCCESSFUL")
    durable.delete("verbs")


def test_script_of_ray_workflows_runs_with_its_imports_changed(client: Client) -> None:
    import script_flows

    run_id = durable.run_async(script_flows.everything, 4, workflow_id="script")
    durable.send_event(run_id, "approved", "yes")
    assert durable.get_output(run_id, timeout_seconds=60) == {
        "product": 24,
        "shaky": "in the end",
        "whole": None,
        "fault": "Step divide failed: ZeroDivisionError: division by zero",
        "event": "yes",
    }
    run = client.run(run_id)
    assert (run.name, run.args) == ("script_flows:everything", [4])


def test_what_a_killed_or_cancelled_step_started_ends_with_it(
    client: Client, tmp_path: Path
) -> None:
    import ray

    run_id = client.start("reserving", str(tmp_path))
    until(lambda: begun(tmp_path, "reserve"))
    assert ray.available_resources()["CPU"] == 3
    os.kill(int(next(tmp_path.glob("reserve-*")).name.rsplit("-", 1)[1]), signal.SIGKILL)
    until(lambda: begun(tmp_path, "reserve") == 2)
    until(lambda: ray.available_resources()["CPU"] == 3)
    client.cancel(run_id)
    until(lambda: ray.available_resources()["CPU"] == 4)
    (tmp_path / "go").touch()
    client.resume(run_id)
    assert client.output(run_id, 30) == 3


def test_two_workers_with_one_id_do_a_run_once(
    client: Client, cluster: Settings, tmp_path: Path
) -> None:
    from raysys import cluster as door

    run_id = client.start("three", str(tmp_path))
    until(lambda: begun(tmp_path, "two"))
    second = door.ensure_actor("second-worker", TARGET)
    try:
        until(lambda: second.call("ping")["ready"], 60)
        until(lambda: begun(tmp_path, "two") == 2)  # it took the run for one that was left
        others = [
            client.start("three", str(tmp_path / str(n))) for n in range(4) if make(tmp_path, n)
        ]
        go(tmp_path)
        assert client.output(run_id, 60)[0] == 1
        assert [client.output(other, 60) for other in others] == [[1, 1, 1]] * 4
    finally:
        door.kill_actor("second-worker")
    assert (begun(tmp_path, "one"), begun(tmp_path, "three")) == (1, 1)
    assert [event.message for _, event in client.events(run_id)].count("succeeded") == 1


def make(folder: Path, number: int) -> bool:
    """Make a folder in which nothing is waited for."""
    (folder / str(number)).mkdir()
    go(folder / str(number))
    return True


def test_log_of_a_step_is_kept_by_the_runs_id(client: Client, tmp_path: Path) -> None:
    run_id = client.start("failing", "broken")
    client.wait(run_id, 30)
    found = client.log(run_id)
    assert found is not None
    where, lines = found
    assert f"runs/{run_id}/logs/001-broken-" in where
    assert "ZeroDivisionError: by zero" in "".join(lines)
    assert client.steps(run_id)[0].task_id is not None
