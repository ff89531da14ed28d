"""What brings back the services that `up` started, when one of them has died; no loop lives here."""

from __future__ import annotations

import os

import httpx
import psutil
from filelock import FileLock, Timeout

from raysys import log
from raysys.laptop import processes
from raysys.laptop.services import MlflowServer
from raysys.settings import RUNNING_NAME, Settings


def keep_services(settings: Settings) -> bool:
    """Start the MLflow server again if it is gone; return whether that was done.

    Only where `up` runs, and never beside `up` or `down`, or a server that is starting or busy.
    """
    if not settings.runs_mlflow or not (settings.home / RUNNING_NAME).exists():
        return False
    if _answers(settings) or _is_there(settings):
        return False
    try:
        with FileLock(settings.home / "up.lock", timeout=0):
            if not (settings.home / RUNNING_NAME).exists() or _is_there(settings):
                return False
            log.get("keeper").warning("MLflow is gone and is started again")
            MlflowServer(settings, dict(os.environ)).start()
            return True
    except Timeout:
        return False


def _answers(settings: Settings) -> bool:
    # Asked first, as looking through all processes costs a tenth of a second.
    try:
        return httpx.get(f"{settings.tracking_uri}/health", timeout=3.0).is_success
    except httpx.HTTPError:
        return False


def _is_there(settings: Settings) -> bool:
    starting = any(_is_mlflow(process) for process in processes.find(settings))
    return starting or processes.owns(settings, settings.mlflow_port)


def _is_mlflow(process: psutil.Process) -> bool:
    try:
        return "mlflow" in process.cmdline()[:4]
    except psutil.Error:
        return False
