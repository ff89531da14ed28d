"""Nodes of a Ray cluster as namespaces of this machine: each with an address, ports and processes of its own.

They start as KubeRay starts Pods, with the environment that the manifests give them. No raysys process of this
machine's own `up` is involved.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from kuberay import manifests
from raysys.errors import Unavailable
from raysys.laptop.dashboard import Dashboard
from raysys.laptop.processes import wait_until
from raysys.laptop.services import MLFLOW_ENVIRONMENT
from raysys.settings import Settings

RAY_TOKEN = "token-of-the-cluster"
API_TOKEN = "token-of-admin"
MLFLOW_PORT = 5000
START_SECONDS = 300.0
RESTARTS = 4
# As in a Pod: `ray start --head` looks at the processes of its machine, and would take other nodes' for its own.
OWN_PROCESSES = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
BIN = Path(sys.executable).parent


def unavailable() -> str:
    """Return why this machine cannot have network namespaces, or nothing."""
    missing = [program for program in ("ip", "unshare") if shutil.which(program) is None]
    if missing:
        return f"there is no {' and no '.join(missing)}"
    name = f"rs{secrets.token_hex(3)}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if done.returncode != 0:
        return f"no network namespace can be made: {done.stderr.strip()}"
    ip("netns", "del", name)
    return ""


def ip(*words: str) -> str:
    """Run the command `ip`."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


class Network:
    """A bridge of this machine and the namespaces on it; `address` is where the nodes find this machine."""

    def __init__(self) -> None:
        self._name = f"rs{secrets.token_hex(3)}"
        self._prefix = f"10.{64 + secrets.randbelow(64)}.{secrets.randbelow(256)}"
        self.address = f"{self._prefix}.1"
        self._count = 1

    def __enter__(self) -> Self:
        ip("link", "add", self._name, "type", "bridge")
        ip("addr", "add", f"{self.address}/24", "dev", self._name)
        ip("link", "set", self._name, "up")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ip("link", "del", self._name)

    def add(self) -> tuple[str, str]:
        """Make a namespace; return its name and its address."""
        self._count += 1
        name, address = f"{self._name}n{self._count}", f"{self._prefix}.{self._count}"
        ip("netns", "add", name)
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", name, "master", self._name, "up")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "route", "add", "default", "via", self.address)
        return name, address


@dataclass
class Node:
    """One node: a namespace, and the processes that are in it."""

    name: str
    address: str
    environment: dict[str, str]
    log: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def spawn(self, *command: str) -> None:
        """Start a command that lives as long as the node."""
        with self.log.open("ab") as out:
            self.processes.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", self.name, *OWN_PROCESSES, *command],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                )
            )

    def run(self, *command: str, code: int | None = 0, timeout: float = 600) -> str:
        """Run a command on the node to its end and return what it printed."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert code is None or done.returncode == code, f"{' '.join(command)}\n{done.stdout}"
        return done.stdout

    def kill(self) -> None:
        """End the node at once, as a machine ends whose power goes."""
        while pids := ip("netns", "pids", self.name).split():
            for pid in map(int, pids):
                try:
                    psutil.Process(pid).kill()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(
                [psutil.Process(p) for p in map(int, pids) if psutil.pid_exists(p)], 5
            )
        for process in self.processes:
            process.wait(10)
        self.processes.clear()

    def remove(self) -> None:
        """End the node and its namespace."""
        self.kill()
        ip("netns", "del", self.name)


class Cluster:
    """A cluster whose nodes are started with what the overlay `dev` gives its Pods, and its MLflow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._network = Network()
        self._nodes: list[Node] = []
        self._mlflow: subprocess.Popen[bytes] | None = None
        self._short = Path("/tmp") / f"rs{secrets.token_hex(3)}"  # a socket's path has to be short
        documents = manifests.render(manifests.folder_of("dev"))
        self.service: dict[str, Any] = next(d for d in documents if d["kind"] == "RayService")
        self._told = {
            name: value
            for document in documents
            if document["kind"] == "ConfigMap" and "postgres" not in document["metadata"]["name"]
            for name, value in document["data"].items()
        }

    def __enter__(self) -> Self:
        self._network.__enter__()
        self._short.mkdir(mode=0o700)
        try:
            self._start_mlflow()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in self._nodes:
            node.remove()
        if self._mlflow is not None:
            tree = [*psutil.Process(self._mlflow.pid).children(recursive=True)]
            self._mlflow.terminate()
            self._mlflow.wait(20)
            psutil.wait_procs(tree, 10)
        self._network.__exit__(None, None, None)
        shutil.rmtree(self._short, ignore_errors=True)

    @property
    def head(self) -> Node:
        """The node of the control store."""
        return self._nodes[0]

    @property
    def tracking_uri(self) -> str:
        """Where MLflow is, for the nodes and for tests."""
        return f"http://{self._network.address}:{MLFLOW_PORT}"

    @property
    def database(self) -> str:
        """The URL of the database, which no test has prepared."""
        return f"sqlite:///{self._folder / 'raysys.db'}"

    def settings(self, home: Path | None = None) -> Settings:
        """Return the settings of a node, as a test may use them."""
        told = manifests.cluster_settings("\n".join(f"{k}={v}" for k, v in self._told.items()))
        given = {
            "home": home or self._folder / "test",
            "database_url": self.database,
            "artifacts": str(self._folder / "artifacts"),
            "mlflow_tracking_uri": self.tracking_uri,
            "api_token": API_TOKEN,
        }
        return told.model_copy(update=given)

    def add_node(
        self, *, cpus: int, resources: str = "{}", env: Mapping[str, str] | None = None
    ) -> Node:
        """Start a node, the first as the head, as KubeRay would; it is there when this returns."""
        name, address = self._network.add()
        node = Node(name, address, self._environment(name, env or {}), self._folder / f"{name}.log")
        self._nodes.append(node)
        self.start(node, cpus=cpus, resources=resources)
        return node

    def start(self, node: Node, *, cpus: int, resources: str = "{}") -> None:
        """Start Ray on a node that has none; a head that was there before keeps its address.

        A node that ends while it starts is started again, as a Pod would be: Ray gives a raylet 30 s, whatever else
        the machine does.
        """
        before = 0 if node is self.head else self.alive_nodes()
        command = self._ray_start(node, cpus, resources)
        for _ in range(RESTARTS):
            node.spawn(*command)
            wait_until(
                lambda: self.alive_nodes() > before or node.processes[-1].poll() is not None,
                f"The node {node.name}",
                timeout_seconds=START_SECONDS,
                log=node.log,
            )
            if node.processes[-1].poll() is None:
                return
            node.kill()
        raise AssertionError(f"{node.name} did not start:\n{node.log.read_text()[-3000:]}")

    def _ray_start(self, node: Node, cpus: int, resources: str) -> list[str]:
        place = (
            ("--head", "--dashboard-host=0.0.0.0", f"--temp-dir={self._short / 'ray'}")
            if node is self.head
            else (f"--address={self.head.address}:6379",)
        )
        return [
            *(str(BIN / "ray"), "start", *place, "--block"),
            *(
                f"--node-ip-address={node.address}",
                f"--num-cpus={cpus}",
                f"--resources={resources}",
            ),
            *("--metrics-export-port=8080", "--dashboard-agent-listen-port=52365"),
            f"--object-store-memory={128 * 2**20}",
        ]

    def alive_nodes(self) -> int:
        """Return how many nodes the control store has."""
        with self.dashboard() as dashboard:
            try:
                return int(dashboard.resources()["nodes"])
            except Unavailable:
                return 0

    def dashboard(self, token: str = RAY_TOKEN) -> Dashboard:
        """Return the dashboard of the head."""
        return Dashboard(f"http://{self.head.address}:8265", token)

    def http(self, node: Node) -> httpx.Client:
        """Return a client of what is served at a node."""
        return httpx.Client(base_url=f"http://{node.address}:8000", timeout=30)

    def _environment(self, name: str, extra: Mapping[str, str]) -> dict[str, str]:
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("RAYSYS_", "RAY_", "MLFLOW_"))
        }
        folder = str(Path(self._told["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"]).parent)
        here = {folder: str(self._short / "ha"), str(manifests.PROGRAMS): str(BIN)}
        told = dict(self._told)
        for there, place in here.items():
            told = {k: v.replace(there, place) for k, v in told.items()}
        return {
            **kept,
            **told,
            "PATH": f"{BIN}:{kept['PATH']}",  # as in the image
            "RAYSYS_HOME": str(self._folder / name),
            "RAYSYS_ARTIFACTS": str(self._folder / "artifacts"),
            "RAYSYS_DATABASE_URL": self.database,
            "RAYSYS_API_TOKEN": API_TOKEN,
            "RAYSYS_MLFLOW_TRACKING_URI": self.tracking_uri,
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": RAY_TOKEN,
            "TMPDIR": str(self._short),
            # What KubeRay sets on the Pods of a RayService.
            "RAY_timeout_ms_task_wait_for_death_info": "0",
            "RAY_gcs_server_request_timeout_seconds": "5",
            "RAY_SERVE_KV_TIMEOUT_S": "5",
            **extra,
        }

    def _start_mlflow(self) -> None:
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--host", self._network.address, "--port", str(MLFLOW_PORT)),
            *("--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}"),
            *(
                "--serve-artifacts",
                "--artifacts-destination",
                str(self._folder / "artifacts/mlflow"),
            ),
        ]
        log = self._folder / "mlflow.log"
        with log.open("ab") as out:
            environment = {**os.environ, **MLFLOW_ENVIRONMENT}
            self._mlflow = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        wait_until(
            self._mlflow_answers,
            "MLflow",
            timeout_seconds=START_SECONDS,
            process=self._mlflow,
            log=log,
        )

    def _mlflow_answers(self) -> bool:
        try:
            return httpx.get(f"{self.tracking_uri}/health", timeout=3).is_success
        except httpx.HTTPError:
            return False
