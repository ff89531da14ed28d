"""What the demo of a home with OTEL_* variables left at the collector: requests, runs, steps, trials."""

from __future__ import annotations

import pytest

from raysys import families
from raysys.laptop.processes import wait_until
from raysys.tracing import trace_of_id
from tests.collector import Collector, Span
from tests.e2e.conftest import Home

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

pytestmark = pytest.mark.early


def await_span(collector: Collector, name: str, **attributes: str) -> Span:
    """Return the span as soon as it has come."""
    wait_until(lambda: bool(collector.named(name, **attributes)), name, timeout_seconds=30)
    return collector.named(name, **attributes)[0]


def test_a_request_is_traced_from_its_caller_to_the_models_run(
    home: Home, collector: Collector
) -> None:
    headers = {"traceparent": CALLER, "x-request-id": "trace-me"}
    family = families.get("insurance")
    for path in ("/predict/insurance", "/v2/models/insurance/ready"):
        with home.client() as client:
            method = "PUT" if path.startswith("/predict") else "GET"
            body = family.example if method == "PUT" else None
            assert client.request(method, path, json=body, headers=headers).status_code == 200
    request = await_span(collector, "predict insurance", request_id="trace-me")
    assert (request.trace_id, request.parent_id) == tuple(CALLER.split("-")[1:3])
    assert request.service == "raysys"
    runs = [s for s in collector.named("run model") if s.parent_id == request.span_id]
    assert [run.attributes["raysys.family"] for run in runs] == ["insurance"]
    # The other went through the gateway, which passes the caller's trace on.
    wait_until(
        lambda: len(collector.named("predict insurance", request_id="trace-me")) == 2,
        "The span of the request through the gateway",
        timeout_seconds=30,
    )
    through = collector.named("predict insurance", request_id="trace-me")[1]
    assert through.trace_id == request.trace_id


def test_a_training_is_one_trace_from_its_run_to_its_trials(
    home: Home, collector: Collector
) -> None:
    training = home.json("runs", "list", "--name", "train")[-1]  # the first, that of the demo
    run = await_span(collector, "run train", workflow_id=training["id"])
    assert run.trace_id == f"{trace_of_id(training['id']):032x}"
    step = await_span(collector, "step search", workflow_id=training["id"])
    task = await_span(collector, "task search", workflow_id=training["id"])
    assert (step.parent_id, task.parent_id) == (run.span_id, step.span_id)
    trials = [span for span in collector.named("trial") if span.parent_id == task.span_id]
    assert len({span.attributes["raysys.trial_id"] for span in trials}) >= 2
    assert {span.trace_id for span in (step, task, *trials)} == {run.trace_id}
