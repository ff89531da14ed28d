"""A run seen from a shell or a Ray job: started, followed line by line, and ended with an exit code."""

from __future__ import annotations

import json
import sys
from typing import Any

from raysys import log
from raysys.durable import Client
from raysys.errors import RaysysError
from raysys.records import Event, Run
from raysys.settings import Settings


def run_to_end(name: str, *args: Any) -> int:
    """Start workflow `name`, write what it tells to standard output, and return 0 or 1."""
    settings = Settings()
    log.configure(settings)
    try:
        with Client(settings) as client:
            workflow_id = client.start(name, *args)
            _write(f"run {workflow_id}")
            return _code(client.wait(workflow_id, on_event=lambda event: _write(line(event))))
    except RaysysError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1


def _code(run: Run) -> int:
    if run.status == "SUCCESSFUL":
        _write(json.dumps(run.output, indent=2, ensure_ascii=False))
        stopped = run.output.get("stopped") if isinstance(run.output, dict) else None
        if stopped:  # a run that ended well, but before its work was done
            sys.stderr.write(f"{run.id} stopped early: {stopped}\n")
        return 1 if stopped else 0
    sys.stderr.write(f"{run.id} is {run.status}: {run.error or 'it has no result'}\n")
    return 1


def line(event: Event) -> str:
    """Return `event` as one line of text."""
    progress = f" {event.done}/{event.total}" if event.done is not None else ""
    return f"{event.at:%H:%M:%S} {event.step}{progress}: {event.message}"


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
