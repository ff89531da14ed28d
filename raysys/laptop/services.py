"""The long-lived services of one machine and how each is started: the MLflow server and the head of the Ray cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx

from raysys.laptop import processes
from raysys.laptop.dashboard import Dashboard
from raysys.settings import Settings

MLFLOW_SECONDS = 180.0
NICENESS = 5
RAY_SECONDS = 180.0
# What a laptop does not need: no anonymous statistics, no background jobs, no gateway to language models.
MLFLOW_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # It tells this machine's gateway of moved aliases.
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_REQUEST_TIMEOUT": "5",
    "MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_WEBHOOK_DELIVERY_MAX_WORKERS": "1",
    "MLFLOW_WEBHOOK_CACHE_TTL": "1",
}


def executable(name: str) -> str:
    """Return the path of a program that was installed beside this Python."""
    return str(Path(sys.executable).parent / name)


class MlflowServer:
    """The tracking server and registry: SQLite and files in the home, proxied artifacts."""

    name = "MLflow"

    def __init__(self, settings: Settings, environment: dict[str, str]) -> None:
        self._settings = settings
        self._environment = environment
        self.log = settings.home / "logs" / "mlflow.log"

    def there(self) -> bool:
        """Return whether there is a server of ours, however busy; or whether another one was named."""
        settings = self._settings
        return not settings.runs_mlflow or processes.owns(settings, settings.mlflow_port)

    def alive(self) -> bool:
        """Return whether it is there and answers its health check."""
        return self.there() and self.answers()

    def answers(self) -> bool:
        """Return whether the health check is answered, by whomever."""
        try:
            return httpx.get(f"{self._settings.tracking_uri}/health", timeout=3.0).is_success
        except httpx.HTTPError:
            return False

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server; it is ready when `alive` holds."""
        settings = self._settings
        command = [
            # It is asked every second, and nobody waits for its answer as callers of replicas do.
            *("nice", "-n", str(NICENESS)),
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", "127.0.0.1", "--port", str(settings.mlflow_port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{settings.home / 'mlflow.db'}"),
            *("--serve-artifacts", "--artifacts-destination", f"{settings.artifact_root}/mlflow"),
            # The watcher asks every second: a line a request would fill the disk.
            *("--uvicorn-opts", "--no-access-log --log-level warning"),
        ]
        environment = {**self._environment, **MLFLOW_ENVIRONMENT}
        return processes.spawn(command, settings=settings, environment=environment, log=self.log)

    def wait(self, process: subprocess.Popen[bytes] | None) -> None:
        """Wait until the server answers; raises Unavailable with the end of its log."""
        # Its port was free or its own before: to look at every process of the machine again would cost much.
        processes.wait_until(
            self.answers,
            "The MLflow server",
            timeout_seconds=MLFLOW_SECONDS,
            process=process,
            log=self.log,
        )


class RayHead:
    """The head node of a Ray cluster of one machine, reachable from this machine only."""

    name = "Ray"

    def __init__(self, settings: Settings, environment: dict[str, str], token: str) -> None:
        self._settings = settings
        self._environment = environment
        self._token = token
        self.log = settings.home / "logs" / "ray.log"

    def there(self) -> bool:
        """Return whether our own control store, node and dashboard are there, however busy."""
        settings = self._settings
        names = {process.name() for process in processes.find(settings)}
        return "raylet" in names and all(
            processes.owns(settings, port)
            for port in (settings.ray_port, settings.ray_dashboard_port)
        )

    def alive(self) -> bool:
        """Return whether it is there and its control store answers."""
        return self.there() and self.answers()

    def answers(self) -> bool:
        """Return whether a control store answers, whoever's."""
        with Dashboard(self._settings.dashboard_url, self._token) as dashboard:
            return dashboard.alive()

    def start(self) -> subprocess.Popen[bytes]:
        """Start the head; the command ends when its processes run."""
        settings = self._settings
        command = [
            *(executable("ray"), "start", "--head", "--disable-usage-stats"),
            *("--node-ip-address", "127.0.0.1", "--port", str(settings.ray_port)),
            *("--dashboard-host", "127.0.0.1"),
            *("--dashboard-port", str(settings.ray_dashboard_port)),
            *("--dashboard-agent-listen-port", str(settings.ray_agent_port)),
            *("--ray-client-server-port", str(settings.ray_client_port)),
            *("--metrics-export-port", str(settings.ray_metrics_port)),
            *("--temp-dir", str(settings.session_folder)),
            # Any free port for workers: the default range would claim ports that settings name.
            *("--min-worker-port", "0", "--max-worker-port", "0"),
            *("--object-store-memory", str(256 * 2**20)),
            *(("--num-cpus", str(settings.num_cpus)) if settings.num_cpus else ()),
        ]
        return processes.spawn(
            command, settings=settings, environment=self._environment, log=self.log
        )

    def wait(self, process: subprocess.Popen[bytes] | None) -> None:
        """Wait until the dashboard and the control store answer; raises Unavailable with the end of the log."""
        processes.wait_until(
            self.answers, "The Ray head", timeout_seconds=RAY_SECONDS, process=process, log=self.log
        )
