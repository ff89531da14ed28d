"""A running raysys whose parts are killed: a second node, a station of endless hours, the ways to kill."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from raysys import tokens
from raysys.durable import Client
from raysys.errors import Unavailable
from raysys.laptop import Stack, processes
from raysys.laptop.dashboard import Dashboard
from raysys.records import StepRun
from raysys.settings import Settings
from tests import kma
from tests.e2e.conftest import Home, free_ports

HOUR = timedelta(hours=1)
BEGIN_SECONDS = 400.0  # a busy machine takes minutes for what an idle one does in seconds
NODE_SECONDS = 120.0


class Station(Mapping[datetime, kma.Item]):
    """Hours of a station from 1990 to 2020, made when they are asked for."""

    first = datetime.fromisoformat("1990-01-01")  # local time, as the service has it
    last = datetime.fromisoformat("2020-12-31T23:00")

    def __contains__(self, hour: object) -> bool:
        return isinstance(hour, datetime) and self.first <= hour <= self.last

    def __getitem__(self, hour: datetime) -> kma.Item:
        if hour not in self:
            raise KeyError(hour)
        temperature = self.temperature(hour)
        row = {"time": f"{hour:%Y-%m-%d %H:%M}", "tmp": f"{temperature}", "ws": "2.5", "wd": "N"}
        return kma.make_item({**row, "p": "1010.0", "precip": "0"})

    def __iter__(self) -> Iterator[datetime]:
        return (self.first + i * HOUR for i in range(len(self)))

    def __len__(self) -> int:
        return int((self.last - self.first) / HOUR) + 1

    def temperature(self, hour: datetime) -> float:
        """Return the temperature of a local hour."""
        warmth = abs(hour.timetuple().tm_yday - 183) / 12
        return round(25 - warmth - abs(hour.hour - 14) / 2 + random.Random(str(hour)).random(), 1)

    def truth(self, since: date, until: date) -> dict[datetime, float]:
        """Return the temperature of each hour (UTC) of the local days from `since` to `until`."""
        start = datetime.combine(since, clock())
        hours = (start + i * HOUR for i in range(((until - since).days + 1) * 24))
        return {h.replace(tzinfo=kma.KST).astimezone(UTC): self.temperature(h) for h in hours}


class Node:
    """A second node of a home's cluster, of one CPU, on this machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._raylet: psutil.Process | None = None

    def start(self) -> None:
        """Join the cluster and return when it has the node."""
        before = self._raylets()
        agent, metrics = free_ports(2)
        command = [
            *(str(Path(sys.executable).parent / "ray"), "start", "--disable-usage-stats"),
            *("--address", f"127.0.0.1:{self._settings.ray_port}"),
            *("--node-ip-address", "127.0.0.1", "--num-cpus", "1"),
            *("--dashboard-agent-listen-port", str(agent), "--metrics-export-port", str(metrics)),
            *("--min-worker-port", "0", "--max-worker-port", "0"),
            *("--object-store-memory", str(128 * 2**20)),
        ]
        environment = {
            **os.environ,
            **Stack(self._settings)._environment(),
            processes.MARK: processes.mark_of(self._settings.home),
            "RAY_raylet_start_wait_time_s": "120",
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        (pid,) = self._raylets() - before
        self._raylet = psutil.Process(pid)
        processes.wait_until(
            lambda: self._nodes() == 2, "the second node", timeout_seconds=NODE_SECONDS
        )

    def kill(self) -> None:
        """Kill the node's raylet; Ray ends the processes that it started."""
        assert self._raylet is not None
        self._raylet.kill()

    def holds(self, pid: int) -> bool:
        """Return whether the process is one of the node's."""
        with suppress(psutil.NoSuchProcess):
            return self._raylet in psutil.Process(pid).parents()
        return False

    def _raylets(self) -> set[int]:
        return {p.pid for p in processes.find(self._settings) if p.name() == "raylet"}

    def _nodes(self) -> int:
        with Dashboard(self._settings.dashboard_url, tokens.ray_token(self._settings)) as ray:
            return int(ray.resources()["nodes"])


class Ground:
    """A home that crawls the stand-in of KMA, with a second node."""

    def __init__(self, home: Home, station: kma.KmaServer) -> None:
        self.home = home
        self.station = station
        self.settings = home.settings()
        self.node = Node(self.settings)
        self.dice = random.Random(os.environ.get("RAYSYS_TEST_SEED", "7"))

    def __enter__(self) -> Self:
        try:
            self.home.run("up")
            self.node.start()
        except BaseException:
            self.home.run("down")
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.home.run("down")
        assert processes.find(self.settings) == []

    def kill(self, what: str, pid: int) -> None:
        """Kill a part; `pid` is the process of the running step. A lost node or cluster is replaced."""
        {
            "worker": self._kill_worker,
            "task": lambda: _kill(pid),
            "node": self._kill_node,
            "cluster": self._kill_cluster,
        }[what]()

    def _kill_worker(self) -> None:
        token = tokens.ray_token(self.settings)
        with Dashboard(self.settings.dashboard_url, token) as dashboard:
            query = {"limit": 1000, "detail": True}
            answer = dashboard._ask("GET", "/api/v0/actors", params=query)
        rows = answer["data"]["result"]["result"]
        alive = [r for r in rows if r["name"] == "raysys-worker" and r["state"] == "ALIVE"]
        if alive:  # else it is between two lives already
            _kill(alive[0]["pid"])

    def _kill_node(self) -> None:
        self.node.kill()
        self.node.start()

    def _kill_cluster(self) -> None:
        for process in processes.find(self.settings):
            _kill(process.pid)
        self.home.run("up")
        self.node.start()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def running_step(client: Client, run_id: str, number: int) -> StepRun | None:
    """Return step `number` of the run once its function runs, None when the run has ended without."""
    deadline = time.monotonic() + BEGIN_SECONDS
    while time.monotonic() < deadline:
        with suppress(Unavailable):
            steps = {step.number: step for step in client.steps(run_id)}
            if number in steps and steps[number].where not in (None, "ray", "worker"):
                return steps[number]
            if client.run(run_id).ended:
                return None
        pause(0.05)
    raise AssertionError(f"step {number} of {run_id} did not begin in {BEGIN_SECONDS:.0f} s")


def pause(seconds: float) -> None:
    """Let time pass."""
    threading.Event().wait(seconds)
