from __future__ import annotations

from collections.abc import Iterator

import pytest

from raysys import tracing
from raysys.tracing import switched_on, trace_of_id
from tests.traces import Traces, traced

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WANTED = {
    "nothing": ({}, False),
    "an endpoint": ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
    "an endpoint of traces": ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, True),
    "an exporter": ({"OTEL_TRACES_EXPORTER": "console"}, True),
    "no exporter": (
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        False,
    ),
    "disabled": ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, False),
    "an endpoint of metrics": (
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"},
        False,
    ),
}


@pytest.mark.parametrize(("environment", "wanted"), WANTED.values(), ids=WANTED.keys())
def test_the_standard_variables_switch_it_on(environment: dict[str, str], wanted: bool) -> None:
    assert switched_on(environment) is wanted


@pytest.fixture
def traces() -> Iterator[Traces]:
    """A tracer and what it exports."""
    with traced() as made:
        yield made


def test_a_span_continues_the_trace_of_its_caller(traces: Traces) -> None:
    with traces.tracer.span("outer", parent=CALLER, server=True, family="waves"):
        passed_on = traces.tracer.here()
        with traces.tracer.span("inner"):
            pass
    inner, outer = traces.spans()["inner"], traces.spans()["outer"]
    assert f"{outer.context.trace_id:032x}" == CALLER.split("-")[1]
    assert f"{outer.parent.span_id:016x}" == CALLER.split("-")[2]
    assert inner.parent.span_id == outer.context.span_id
    assert outer.attributes == {"raysys.family": "waves"}
    assert passed_on.split("-")[1:3] == [CALLER.split("-")[1], f"{outer.context.span_id:016x}"]


@pytest.mark.parametrize("parent", ["", "00-zz-1-1", "x" * 500])
def test_a_bad_parent_is_none(traces: Traces, parent: str) -> None:
    with traces.tracer.span("request", parent=parent):
        pass
    assert traces.spans()["request"].parent is None


def test_whoever_goes_on_with_a_run_goes_on_with_its_trace(traces: Traces) -> None:
    for attempt in ("first", "second"):
        with traces.tracer.span(attempt, trace_of="w-1"), traces.tracer.span(f"{attempt} step"):
            pass
    with traces.tracer.span("other", trace_of="w-2"):
        pass
    trace_ids = {name: span.context.trace_id for name, span in traces.spans().items()}
    assert trace_ids.pop("other") == trace_of_id("w-2")
    assert set(trace_ids.values()) == {trace_of_id("w-1")}


def test_an_exception_is_kept_and_goes_on(traces: Traces) -> None:
    with pytest.raises(KeyError), traces.tracer.span("step"):
        raise KeyError("x")
    assert not traces.spans()["step"].status.is_ok


def test_without_the_variables_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "tracer", lambda: None)
    with tracing.span("run", trace_of="w-1") as span:
        assert span is None
        assert tracing.here() == ""
    tracing.flush()
