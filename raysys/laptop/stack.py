"""Everything that runs for one home: brought up in order, looked at, ended. A part is started only if it is down."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from filelock import FileLock

from raysys import db, durable, tokens
from raysys.errors import Conflict, Unavailable
from raysys.laptop import processes
from raysys.laptop.dashboard import Dashboard
from raysys.laptop.services import MlflowServer, RayHead
from raysys.monitoring import files
from raysys.serving.config import serve_config, serve_environment
from raysys.settings import RUNNING_NAME, Settings

Notify = Callable[[str], None]

APPLICATIONS_SECONDS = 300.0
ACTORS = ("raysys-worker", "raysys-watcher")
PORTS = (
    "http_port",
    "ray_port",
    "ray_dashboard_port",
    "ray_client_port",
    "ray_agent_port",
    "ray_metrics_port",
    "haproxy_metrics_port",
    "haproxy_stats_port",
    "fallback_port",
)


class Stack:
    """The processes of one home on this machine."""

    def __init__(self, settings: Settings, notify: Notify = lambda _message: None) -> None:
        self.settings = settings
        self._notify = notify
        self._running = settings.home / RUNNING_NAME

    def up(self) -> None:
        """Start what does not run yet and return when all of it is ready; of two calls at once one waits."""
        self.settings.home.mkdir(parents=True, exist_ok=True)
        with FileLock(self.settings.home / "up.lock"):
            self._refuse_other_settings()
            self._write_running()
            files.write(self.settings)
            self._start_services()
            self._deploy()

    def down(self) -> int:
        """End every process that `up` started, and theirs; return how many there were."""
        self.settings.home.mkdir(parents=True, exist_ok=True)
        with FileLock(self.settings.home / "up.lock"):
            # First, or the gateway would start again what is ended.
            self._running.unlink(missing_ok=True)
            processes.drain(self.settings)
            count = processes.end_all(self.settings)
            shutil.rmtree(self.settings.session_folder, ignore_errors=True)
            return count

    def status(self) -> dict[str, Any]:
        """Return what runs, as plain data; `ready` is whether all of it does."""
        settings = self.settings
        token = tokens.ray_token(settings)
        state: dict[str, Any] = {
            "database": _state(self._database_answers()),
            "mlflow": _state(MlflowServer(settings, {}).alive()),
            "ray": _state(RayHead(settings, {}, token).alive()),
            "applications": {},
            "actors": dict.fromkeys(ACTORS, "DOWN"),
            "served": [],
            "urls": self.urls(),
            "monitoring": files.commands(settings),
        }
        if state["ray"] == "up":
            with Dashboard(settings.dashboard_url, token) as dashboard:
                state["cluster"] = dashboard.resources()
                state["applications"] = {
                    n: a["status"] for n, a in dashboard.applications().items()
                }
                state["actors"] |= {n: s for n, s in dashboard.actors().items() if n in ACTORS}
            state["served"] = self._served()
        return {**state, "ready": _ready(state)}

    def _database_answers(self) -> bool:
        engine = db.open_engine(self.settings.database)
        try:
            with db.reading(engine) as connection:
                connection.exec_driver_sql("SELECT 1")
        except Unavailable:
            return False
        finally:
            engine.dispose()
        return True

    def _served(self) -> list[dict[str, Any]]:
        settings = self.settings
        headers = {"Authorization": f"Bearer {tokens.api_token(settings)}"}
        try:
            answer = httpx.get(f"{settings.http_url}/admin/models", headers=headers, timeout=10)
            served: list[dict[str, Any]] = answer.raise_for_status().json()["serving"]["replicas"]
        except httpx.HTTPError:
            return []
        return served

    def urls(self) -> dict[str, str]:
        """Return the addresses that people open."""
        settings = self.settings
        return {
            "predictions": settings.http_url,
            "docs": f"{settings.http_url}/docs",
            "mlflow": settings.tracking_uri,
            "ray": settings.dashboard_url,
        }

    # -- steps of `up` -----------------------------------------------------------------------------------------------

    def _refuse_other_settings(self) -> None:
        if not self._running.exists() or not processes.find(self.settings):
            return
        before, now = json.loads(self._running.read_text()), self.settings.changed()
        differing = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if differing:
            raise Conflict(
                f"raysys runs from {self.settings.home} with other settings ({', '.join(differing)}). "
                "Run `raysys down` first.",
                settings=differing,
            )

    def _write_running(self) -> None:
        text = json.dumps(self.settings.changed(), indent=2)
        handle = os.open(self._running, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(text)

    def _start_services(self) -> None:
        settings = self.settings
        mlflow = MlflowServer(settings, self._environment())
        ray = RayHead(settings, self._environment(), tokens.ray_token(settings))
        if not ray.there():
            # What a crash left of an old cluster would answer in the new one's place.
            processes.end_all(settings)
        missing = [service for service in (ray, mlflow) if not service.there()]
        self._refuse_taken_ports(mlflow in missing)
        (settings.session_folder / "tmp").mkdir(mode=0o700, parents=True, exist_ok=True)
        started = {service: service.start() for service in missing}
        self._notify("Preparing the database")
        db.migrate(settings)
        durable.migrate(settings)
        for service in (ray, mlflow):  # one that was there may be busy: it is waited for, not ended
            self._notify(f"Waiting for {service.name}")
            service.wait(started.get(service))

    def _refuse_taken_ports(self, with_mlflow: bool) -> None:
        names = (*PORTS, "mlflow_port") if with_mlflow else PORTS
        processes.refuse_taken({n: getattr(self.settings, n) for n in names}, self.settings)

    def _environment(self) -> dict[str, str]:
        settings = self.settings
        tokens.api_token(settings)
        tokens.ray_token(settings)
        return {
            **settings.environment(),
            **serve_environment(settings),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(settings.home / tokens.RAY_TOKEN_NAME),
            "RAY_USAGE_STATS_ENABLED": "0",
            # Of two heads on one machine each would tell Prometheus to read the other's.
            "AUTOSCALER_METRIC_PORT": str(settings.ray_autoscaler_metrics_port),
            "DASHBOARD_METRIC_PORT": str(settings.ray_dashboard_metrics_port),
            # `ray job submit -- python -m workflows.train` means this Python, activated or not.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "MLFLOW_TRACKING_URI": settings.tracking_uri,
            # What a killed process leaves in the temporary folder goes when the session's folder goes.
            "TMPDIR": str(settings.session_folder / "tmp"),
        }

    def _deploy(self) -> None:
        settings = self.settings
        with Dashboard(settings.dashboard_url, tokens.ray_token(settings)) as dashboard:
            self._notify("Deploying the applications")
            processes.wait_until(
                lambda: _accepts(dashboard, serve_config(settings)),
                "Ray Serve",
                timeout_seconds=APPLICATIONS_SECONDS,
            )
            self._wait_for_applications(dashboard)
            self._notify("Waiting for the workflow worker")
            processes.wait_until(
                lambda: all(dashboard.actors().get(name) == "ALIVE" for name in ACTORS),
                "The workflow worker",
                timeout_seconds=APPLICATIONS_SECONDS,
            )

    def _wait_for_applications(self, dashboard: Dashboard) -> None:
        deadline = time.monotonic() + APPLICATIONS_SECONDS
        while True:
            states = {n: a["status"] for n, a in dashboard.applications().items()}
            if states and all(state == "RUNNING" for state in states.values()):
                return
            self._notify(
                "Starting "
                + ", ".join(f"{n} ({s.lower()})" for n, s in states.items() if s != "RUNNING")
            )
            if time.monotonic() > deadline or "DEPLOY_FAILED" in states.values():
                raise Unavailable(f"Some applications did not start: {_troubles(dashboard)}")
            time.sleep(0.5)


def _state(alive: bool) -> str:
    return "up" if alive else "down"


def _ready(state: dict[str, Any]) -> bool:
    return (
        all(state[part] == "up" for part in ("database", "mlflow", "ray"))
        and bool(state["applications"])
        and all(status == "RUNNING" for status in state["applications"].values())
        and all(status == "ALIVE" for status in state["actors"].values())
    )


def _accepts(dashboard: Dashboard, config: dict[str, Any]) -> bool:
    try:
        dashboard.deploy(config)
    except Unavailable as error:
        if 400 <= int(error.fields.get("code", 0)) < 500:
            raise
        return False
    return True


def _troubles(dashboard: Dashboard) -> str:
    return "; ".join(
        f"{name}: {application.get('message') or application['status']}"
        for name, application in dashboard.applications().items()
        if application["status"] != "RUNNING"
    )
