"""A tracer whose spans stay in memory, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raysys.tracing import Tracer


class Traces:
    """A tracer and the spans that it has made so far."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._exporter = InMemorySpanExporter()
        self.tracer = Tracer(self._exporter)

    def spans(self) -> dict[str, Any]:
        """Return every ended span by its name; of several with one name the last."""
        self.tracer.flush()
        return {span.name: span for span in self._exporter.get_finished_spans()}


@contextmanager
def traced() -> Iterator[Traces]:
    """Give a tracer and end its thread afterwards."""
    made = Traces()
    try:
        yield made
    finally:
        made.tracer.close()
