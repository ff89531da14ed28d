"""Structured logs: events with ids, as JSON lines or as text on a terminal; no message is a sentence of prose."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog

from raysys.settings import Settings

SECRET_NAMES = ("token", "password", "secret", "service_key", "servicekey", "authorization")


def configure(settings: Settings, stream: Any = None) -> None:
    """Send every event of this process to `stream` (standard error by default) in the format that settings name."""
    out = stream or sys.stderr
    console = settings.log_format == "console" or (settings.log_format == "auto" and out.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer()
        if console
        else structlog.processors.JSONRenderer(default=str)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _mask,
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


def _mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return {
        k: "***" if any(s in k.lower() for s in SECRET_NAMES) and v else v for k, v in event.items()
    }
