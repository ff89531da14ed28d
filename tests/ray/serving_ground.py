"""What the tests of serving stand on: free ports, an MLflow server, and models of one multiplication."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil

from raysys import families
from raysys.errors import RaysysError
from raysys.laptop.services import MLFLOW_ENVIRONMENT
from raysys.serving.config import serve_environment
from raysys.serving.loader import example_rows
from raysys.settings import Settings

PORTS = (
    "http_port",
    "mlflow_port",
    "haproxy_metrics_port",
    "haproxy_stats_port",
    "fallback_port",
)
TOKEN = "a-token-of-the-tests"


def serving_environment(home: Path) -> dict[str, str]:
    """Return the variables under which a cluster of tests serves, apart from any other."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in PORTS]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = {name: s.getsockname()[1] for name, s in zip(PORTS, sockets, strict=True)}
    settings = Settings(home=home, api_token=TOKEN, **ports)
    return {**settings.environment(), **serve_environment(settings)}


class Mlflow:
    """An MLflow server at the address that settings name; it may be stopped and started again."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and return when it answers; it has the models that it had before."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"),
            *("--port", str(self.settings.mlflow_port)),
            *("--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}"),
            *("--artifacts-destination", str(self._folder / "artifacts"), "--serve-artifacts"),
        ]
        env = {**os.environ, **MLFLOW_ENVIRONMENT}
        with (self._folder / "mlflow.log").open("ab") as out:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=out, env=env, start_new_session=True
            )
        until(lambda: httpx.get(f"{self.settings.tracking_uri}/health").is_success, 90)

    def stop(self) -> None:
        """End the server and all that it started."""
        if self._process is not None:
            stop_tree(self._process.pid)
            self._process.wait(10)
            self._process = None


def stop_tree(pid: int) -> None:
    """End a process and all that it started."""
    try:
        root = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    tree = [*root.children(recursive=True), root]
    for each in tree:
        each.kill()
    psutil.wait_procs(tree, 10)


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait until `condition` holds and return what it gave; an error of a connection counts as no."""
    deadline, last = time.monotonic() + seconds, None
    pause = threading.Event()
    while time.monotonic() < deadline:
        try:
            last = condition()
        except (httpx.HTTPError, RaysysError) as error:
            last = error
        else:
            if last:
                return last
        pause.wait(0.05)
    raise AssertionError(f"not within {seconds} s; last: {last!r}")


def scaled_model(family_name: str, scale: float, outputs: int = 1) -> bytes:
    """Return an ONNX model that gives `outputs` times the sum of the family's input times `scale`."""
    from onnx import TensorProto, helper

    width = example_rows(families.get(family_name)).shape[1]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "scaled",
        [value("x", TensorProto.FLOAT, [None, width])],
        [value("y", TensorProto.FLOAT, [None, outputs])],
        [helper.make_tensor("w", TensorProto.FLOAT, [width, outputs], [scale] * width * outputs)],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(model.SerializeToString())


def register(settings: Settings, family: str, data: bytes, sha256: str | None = None) -> str:
    """Register `data` as raysys does, by REST, and return its version."""
    with httpx.Client(base_url=settings.tracking_uri, timeout=30) as http:
        api = "/api/2.0/mlflow"
        http.post(f"{api}/registered-models/create", json={"name": family})
        run = http.post(f"{api}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]
        place = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
        path = f"/api/2.0/mlflow-artifacts/artifacts/{place}/model/model.onnx"
        http.put(path, content=data).raise_for_status()
        source = {"source": f"{run['artifact_uri']}/model", "run_id": run["run_id"]}
        return create_version(http, family, source, sha256 or hashlib.sha256(data).hexdigest())


def create_version(http: httpx.Client, family: str, source: dict[str, str], sha256: str) -> str:
    """Make one more version of files that are there; return its number."""
    tags = {"raysys.sha256": sha256, "raysys.model_path": "model.onnx"}
    body = {
        "name": family,
        **source,
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }
    answer = http.post("/api/2.0/mlflow/model-versions/create", json=body)
    answer.raise_for_status()
    return str(answer.json()["model_version"]["version"])


def own_processes(settings: Settings, name: str) -> list[psutil.Process]:
    """Return the processes of this cluster whose command line holds `name`."""
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            ours = process.environ().get("RAYSYS_HOME") == str(settings.home)
            if ours and any(name in part for part in process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
