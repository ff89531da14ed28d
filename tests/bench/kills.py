"""What a killed process costs its callers: replica, watcher, HAProxy and MLflow, each under load."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil

from raysys.laptop import processes
from raysys.laptop.dashboard import Dashboard
from raysys.serving.watcher import WATCHER
from raysys.tokens import ray_token
from tests.bench import load
from tests.bench.servers import Raysys, until
from tests.bench.suite import Probe

Notify = Callable[[str], None]

CONNECTIONS = 16
SECONDS = 30.0


def kills(server: Raysys, notify: Notify) -> dict[str, Any]:
    """Kill one process of each kind under load; return who failed, and when the last one did."""
    found = {}
    victims = {
        "replica": partial(server.processes, "ServeReplica:insurance"),
        "HAProxy": partial(server.processes, "bin/haproxy"),
        "MLflow": partial(_mlflow, server),
        "watcher": partial(_watcher, server),
    }
    for name, these in victims.items():
        notify(f"killing {name} under load")
        found[name] = _kill(server, these, busy=name == "replica")
    return found


def _mlflow(server: Raysys) -> list[psutil.Process]:
    return [p for p in processes.find(server.settings) if "mlflow" in " ".join(p.cmdline())]


def _watcher(server: Raysys) -> list[psutil.Process]:
    with Dashboard(server.settings.dashboard_url, ray_token(server.settings)) as dashboard:
        pid = dashboard.actor_pids().get(WATCHER)
    return [psutil.Process(pid)] if pid and psutil.pid_exists(pid) else []


def _kill(
    server: Raysys, victims: Callable[[], list[psutil.Process]], *, busy: bool
) -> dict[str, Any]:
    """Kill one of several replicas (`busy`: load has made them several), or all of another kind."""
    target = server.target("insurance")
    if busy:
        warm = load.start(target, 32, 60)
        until(lambda: len(victims()) > 1, "a second replica", 60)
        warm.terminate()
        warm.wait(10)
    pressure = load.start(target, CONNECTIONS, SECONDS)
    with Probe(target) as probe:
        time.sleep(3)
        chosen = victims()[:1] if busy else victims()
        killed_at = time.monotonic()
        for victim in chosen:
            victim.kill()
        crowd = load.finish(pressure)
    last = max(probe.failures, default=killed_at)
    return {
        "killed": len(chosen),
        "requests": crowd.requests,
        "failed": crowd.failed,
        "cut": crowd.cut,
        "whole_again_after_seconds": round(max(0.0, last - killed_at), 2),
        "back": _comes_back(victims),
    }


def _comes_back(victims: Callable[[], list[psutil.Process]]) -> bool:
    try:
        until(victims, "a successor", 60)
    except TimeoutError:
        return False
    return True
