"""Structured logs: events with ids, as JSON lines or as text on a terminal; no message is a sentence of prose."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import structlog

from raysys.log_file import LogFile
from raysys.settings import Settings

SECRET_NAMES = ("token", "password", "secret", "service_key", "servicekey", "authorization")

Event = MutableMapping[str, Any]
Processor = Callable[[Any, str, Event], Mapping[str, Any]]


def configure(settings: Settings, stream: Any = None) -> None:
    """Send every event of this process to `stream` (standard error by default) in the format that settings name.

    The log file that settings name gets each as well, as JSON: one stream of all processes.
    """
    out = stream or sys.stderr
    console = settings.log_format == "console" or (settings.log_format == "auto" and out.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if console else _json()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _mask,
            _trace,
            *_kept(settings),
            *([] if console else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.log_level]
        ),
        logger_factory=structlog.PrintLoggerFactory(out),
    )


def get(noun: str) -> Any:
    """Return the logger of one part of the system; `noun` becomes the field `part`."""
    return structlog.get_logger(part=noun)


@contextmanager
def bound(**ids: Any) -> Iterator[None]:
    """Add ids (`workflow_id`, `run_id`, `family`, `version`) to every event inside the block."""
    with structlog.contextvars.bound_contextvars(**ids):
        yield


def _json() -> Any:
    return structlog.processors.JSONRenderer(default=str)


def _kept(settings: Settings) -> list[Processor]:
    """Return what copies each event into the log file, with the id of the process."""
    path = settings.log_path
    if path is None:
        return []
    file = _file(path, settings.log_file_bytes, settings.log_files)
    render = _json()

    def keep(logger: Any, method: str, event: Event) -> Event:
        copied = structlog.processors.format_exc_info(logger, method, {**event, "pid": os.getpid()})
        file.write(render(logger, method, copied))
        return event

    return [keep]


@cache
def _file(path: Path, most_bytes: int, kept: int) -> LogFile:
    return LogFile(path, most_bytes, kept)


def _trace(_logger: Any, _method: str, event: Event) -> Event:
    """Add the trace that the event happens in; where nobody traces, the library is not even imported."""
    library = sys.modules.get("opentelemetry.trace")
    if library is not None:
        at = library.get_current_span().get_span_context()
        if at.is_valid:
            event["trace_id"] = f"{at.trace_id:032x}"
    return event


def _mask(_logger: Any, _method: str, event: Event) -> Event:
    return {
        k: "***" if any(s in k.lower() for s in SECRET_NAMES) and v else v for k, v in event.items()
    }
