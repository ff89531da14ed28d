from __future__ import annotations

from pathlib import Path

import pytest

from raysys import durable
from raysys.durable import context, flow
from raysys.durable.engine import Engine
from raysys.errors import WorkflowError
from raysys.settings import Settings
from tests.unit.durable import flows


def test_workflow_and_step_are_plain_functions_outside_a_worker() -> None:
    assert flows.adding(1, 2) == 3
    assert flows.add(1, 2) == flows.Sum(value=3)


def test_local_function_cannot_be_a_ray_step() -> None:
    @durable.step(where="ray")
    def local() -> None: ...

    with pytest.raises(WorkflowError, match="Put it at the top level of a module"):
        _ = local.target


def test_two_workflows_of_one_name_are_refused() -> None:
    with pytest.raises(WorkflowError, match="Two workflows are called 'adding'"):

        @durable.workflow(name="adding")
        def another() -> None: ...


def test_worker_step_takes_no_time_out() -> None:
    with pytest.raises(WorkflowError, match='use where="ray" for a time-out'):
        durable.step(timeout_seconds=1)


def test_workflow_is_about_a_family_when_its_first_argument_says_so() -> None:
    assert flows.about.about_family
    assert not flows.adding.about_family
    assert flow.registered()["about"] is flows.about


@pytest.mark.parametrize("verb", [lambda: durable.sleep(1), lambda: durable.wait_for_event("x")])
def test_waiting_outside_a_workflow_is_refused(verb: object) -> None:
    with pytest.raises(WorkflowError, match="only in the body of a workflow"):
        verb()  # type: ignore[operator]


def test_notify_outside_a_run_does_nothing() -> None:
    durable.notify("half", done=1, total=2)
    assert context.running() is None
    with pytest.raises(WorkflowError, match="There is no workflow here"):
        durable.workflow_id()


def test_step_takes_its_cpus_from_the_setting_it_names(tmp_path: Path) -> None:
    engine = Engine(Settings(home=tmp_path, trial_cpus=2.5))
    named = durable.step(where="ray", num_cpus="trial_cpus")(len)
    assert engine._cpus(named) == 2.5
    assert engine._cpus(durable.step(where="ray", num_cpus=0)(len)) == 0
