"""Traces by OpenTelemetry, switched on by its own OTEL_* variables; without them nothing is imported or done.

What is traced is said where it happens: a request and its model run, a run and its steps and trials.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from typing import Any

SERVICE = "raysys"
FLUSH_MILLISECONDS = 3_000  # how long a process that ends may wait for the collector
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_trace_id: ContextVar[int | None] = ContextVar("raysys_trace_id", default=None)


def switched_on(environment: Mapping[str, str]) -> bool:
    """Return whether the standard variables ask for traces: an exporter by name, or an endpoint of one."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return exporter != "none" and (
        bool(exporter) or any(environment.get(each) for each in ENDPOINTS)
    )


@cache
def tracer() -> Tracer | None:
    """Return what this process traces with, or None where nobody asked for traces."""
    return Tracer(_exporter()) if switched_on(os.environ) else None


def span(
    name: str, *, parent: str = "", trace_of: str = "", **attributes: Any
) -> AbstractContextManager[Any]:
    """Return a block that is a span of `tracer()`, or does nothing; see `Tracer.span`."""
    found = tracer()
    if found is None:
        return nullcontext()
    return found.span(name, parent=parent, trace_of=trace_of, **attributes)


def here() -> str:
    """Return the span of now as a `traceparent`, for another process; empty outside a span."""
    found = tracer()
    return found.here() if found is not None else ""


def flush() -> None:
    """Send what is left, before a process that may be ended."""
    found = tracer()
    if found is not None:
        found.flush()


class Tracer:
    """Makes spans and gives them to `exporter` in batches, in a thread of its own."""

    def __init__(self, exporter: Any) -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before what is said here.
        mine = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: SERVICE}
        self._provider = TracerProvider(
            resource=Resource.create(mine), id_generator=_ids(), shutdown_on_exit=True
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(SERVICE)

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str = "",
        trace_of: str = "",
        server: bool = False,
        **attributes: Any,
    ) -> Iterator[Any]:
        """Make the block a span, and an exception that leaves it the span's.

        Its parent is the `traceparent` of another process, or else the span around it. One without a parent begins
        the trace that belongs to the id `trace_of`: whoever goes on with that id's work goes on with its trace. The
        names of `attributes` get `raysys.` before them.
        """
        from opentelemetry.trace import SpanKind

        kind = SpanKind.SERVER if server else SpanKind.INTERNAL
        named = {f"{SERVICE}.{key}": value for key, value in attributes.items()}
        token = _trace_id.set(trace_of_id(trace_of) if trace_of else None)
        try:
            block = self._tracer.start_as_current_span(
                name, context=_context(parent), kind=kind, attributes=named
            )
            with block as made:
                yield made
        finally:
            _trace_id.reset(token)

    def here(self) -> str:
        """Return the span of now as a `traceparent`."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        return carrier.get("traceparent", "")

    def flush(self) -> None:
        """Send what is left, for some seconds at most."""
        self._provider.force_flush(FLUSH_MILLISECONDS)

    def close(self) -> None:
        """Send what is left and end the thread."""
        self._provider.shutdown()


def trace_of_id(text: str) -> int:
    """Return the trace that belongs to an id."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


def _context(parent: str) -> Any:
    """Return the context of a `traceparent`; None, which is that of now, without one or with a bad one."""
    if not parent:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": parent}) or None


def _ids() -> Any:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            return _trace_id.get() or super().generate_trace_id()

    return Ids()


def _exporter() -> Any:
    if os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
