"""The worker as an actor: made when it is missing, waited for until it runs; what it does is not here."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

from raysys import cluster
from raysys.errors import Unavailable
from raysys.settings import Settings

WORKER = "raysys-worker"
TARGET = "workflows.worker:Worker"
POLL_SECONDS = 0.5
GRACE_SECONDS = 5.0


def ensure_worker(settings: Settings, target: str = TARGET) -> cluster.Handle:
    """Make the worker's actor when there is none; Ray keeps it alive from then on.

    Call it from a process that lives as long as the cluster: Ray uses the processes of tasks again only while the
    driver that made their actor lives.
    """
    cluster.connect(settings)
    return cluster.ensure_actor(WORKER, target, resource=settings.service_resource)


def wait_ready(
    settings: Settings, timeout_seconds: float = 60.0, target: str = TARGET
) -> dict[str, Any]:
    """Wait until the worker runs workflows, and return what it says of itself.

    When nobody has made it within a grace of seconds, make it. Raises Unavailable with its last words.
    """
    cluster.connect(settings)
    began, pause, last = time.monotonic(), threading.Event(), "nobody has made it"
    while (passed := time.monotonic() - began) < timeout_seconds:
        handle = cluster.find_actor(WORKER)
        if handle is None and passed > GRACE_SECONDS:
            handle = ensure_worker(settings, target)
        if handle is not None:
            try:
                state: dict[str, Any] = handle.call(
                    "ping", timeout_seconds=timeout_seconds - passed
                )
            except Unavailable as error:
                state = {"ready": False, "error": error.message}
            if state["ready"]:
                return state
            last = str(state["error"] or "it is starting")
        pause.wait(POLL_SECONDS)
    raise Unavailable(f"The worker is not ready after {timeout_seconds:g} s: {last}", actor=WORKER)


def stop_worker(settings: Settings) -> bool:
    """Let the worker put down its work, and end its actor; return whether there was one."""
    cluster.connect(settings)
    handle = cluster.find_actor(WORKER)
    if handle is None:
        return False
    with suppress(Unavailable):  # it is ended below in any case
        handle.call("stop", timeout_seconds=10)
    return cluster.kill_actor(WORKER)
