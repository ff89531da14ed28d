"""The servers of the benchmark: raysys in a home of its own, and uvicorn with a plain application."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from raysys import families
from raysys.laptop import Stack, processes
from raysys.registry import Registry
from raysys.settings import Settings
from tests.bench.baseline import MODELS
from tests.bench.load import Target

READY_SECONDS = 180.0
WHERE = "127.0.0.1"
PERSON = {"age": 31, "sex": 1, "bmi": 25.7, "children": 0, "smoker": 0, "region": 2}


def body(family: str) -> str:
    """Return the request that every server gets for a family."""
    return json.dumps(PERSON if family == "insurance" else families.get(family).example)


def until(check: Any, what: str, seconds: float = READY_SECONDS) -> None:
    """Wait until `check` holds, an error of a connection counting as no."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if check():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"{what} was not ready within {seconds:.0f} s")


class Raysys:
    """A running raysys whose champions are the benchmark's models; end it with `down`."""

    def __init__(self, home: Path, **changes: Any) -> None:
        names = [name for name in Settings.model_fields if name.endswith("_port")]
        ports: dict[str, Any] = dict(zip(names, _free_ports(len(names)), strict=True))
        self.settings = Settings(home=home, **ports, **changes)
        self.registry = Registry(self.settings.tracking_uri)
        self.versions: dict[str, list[str]] = {}

    def up(self, models: Path) -> dict[str, float]:
        """Start everything; return the seconds until it ran, and until both families answered."""
        started = time.monotonic()
        Stack(self.settings).up()
        ran = time.monotonic() - started
        for family in ("insurance", "atmos"):
            data = (models / f"{family}.onnx").read_bytes()
            self.versions[family] = [self._register(family, data) for _ in range(2)]
            self.registry.set_alias(family, "champion", self.versions[family][0])
        served = time.monotonic()
        for family in self.versions:
            until(lambda name=family: self.ask(name).is_success, family)
        return {"up_seconds": ran, "first_model_seconds": time.monotonic() - served}

    def down(self) -> None:
        """End everything and remove the home."""
        self.registry.close()
        Stack(self.settings).down()
        shutil.rmtree(self.settings.home, ignore_errors=True)

    def target(self, family: str) -> Target:
        """Return where this server is asked about a family."""
        route = families.get(family).route
        return Target(f"{self.settings.http_url}/predict/{route}", body(family))

    def ask(self, family: str) -> httpx.Response:
        """Ask for one prediction."""
        url, text = self.target(family)
        return httpx.post(url, content=text, headers={"content-type": "application/json"})

    def resident_megabytes(self, name: str) -> dict[int, float]:
        """Return the memory of each process of this home whose title holds `name`, by process id."""
        return {p.pid: round(p.memory_info().rss / 1e6, 1) for p in self.processes(name)}

    def processes(self, name: str) -> list[psutil.Process]:
        """Return the processes of this home whose title, or else whose program, holds `name`."""
        return [p for p in processes.find(self.settings) if name in (p.cmdline() or [""])[0]]

    def _register(self, family: str, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        api = "/api/2.0/mlflow"
        with httpx.Client(base_url=self.settings.tracking_uri, timeout=30) as http:
            http.post(f"{api}/registered-models/create", json={"name": family})
            made = http.post(f"{api}/runs/create", json={"experiment_id": "0"})
            run = made.raise_for_status().json()["run"]["info"]
            place = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
            path = f"/api/2.0/mlflow-artifacts/artifacts/{place}/model/model.onnx"
            http.put(path, content=data).raise_for_status()
            tags = {"raysys.sha256": digest, "raysys.model_path": "model.onnx"}
            version = {
                "name": family,
                "source": f"{run['artifact_uri']}/model",
                "run_id": run["run_id"],
                "tags": [{"key": key, "value": value} for key, value in tags.items()],
            }
            answer = http.post(f"{api}/model-versions/create", json=version)
            return str(answer.raise_for_status().json()["model_version"]["version"])


@contextmanager
def raysys(models: Path, **changes: Any) -> Iterator[tuple[Raysys, dict[str, float]]]:
    """Give a running raysys and how long it took to come up; nothing of it is left afterwards."""
    server = Raysys(Path(tempfile.mkdtemp(prefix="raysys-bench-")), **changes)
    try:
        yield server, server.up(models)
    finally:
        server.down()


@contextmanager
def uvicorn(application: str, workers: int, models: Path, family: str) -> Iterator[Target]:
    """Give a running plain server of `tests.bench.baseline`; all its processes end afterwards."""
    (port,) = _free_ports(1)
    words = ["--factory", f"tests.bench.baseline:{application}", "--port", str(port)]
    quiet = ["--no-access-log", "--log-level", "error", "--workers", str(workers)]
    environment = {**os.environ, MODELS: str(models), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *words, *quiet],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    route = families.get(family).route
    target = Target(f"http://{WHERE}:{port}/predict/{route}", body(family))
    headers = {"content-type": "application/json"}
    try:
        until(
            lambda: httpx.post(target.url, content=target.body, headers=headers).is_success,
            application,
        )
        time.sleep(1.0 if workers > 1 else 0.0)  # the first worker answers before the last is there
        yield target
    finally:
        tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        processes.end(tree)
        process.wait(10)


def machine() -> dict[str, Any]:
    """Return what the figures depend on, without the machine's name."""
    about = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", about)
    return {
        "cpus": os.cpu_count(),
        "cpu": model[1] if model else "unknown",
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "load": round(os.getloadavg()[0], 1),
        "python": sys.version.split()[0],
    }


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((WHERE, 0))
        return [each.getsockname()[1] for each in sockets]
