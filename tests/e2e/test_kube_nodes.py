"""Several nodes: a head without CPUs and two workers do the main job, and lose a node or the head, but no work."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from raysys import families
from raysys.laptop.processes import wait_until
from tests.e2e.kube_nodes import BIN, Cluster, Node, unavailable
from tests.e2e.test_kube_head import READY_SECONDS, accepts, all_run

pytestmark = pytest.mark.slow

MAIN_JOB = """
import json, sys
from raysys import families
from raysys.cli.context import opened
from raysys.cli.demo import run_family
with opened() as runtime:
    done = {n: run_family(runtime, families.get(n), 2)["answered_by_champion"] for n in families.names()}
print("DONE", json.dumps(done))
"""
RESOURCES = '{"serving": 2}'
BETWEEN_SECONDS = 0.05


@dataclass
class Ground:
    """A cluster of three nodes, and where the head keeps what it knows."""

    cluster: Cluster
    storage: Path
    config: dict[str, Any]
    workers: list[Node]

    def deploy(self) -> None:
        """Give Serve its config, as the operator does, and wait until all of it runs."""
        with self.cluster.dashboard() as dashboard:
            wait_until(
                lambda: accepts(dashboard, self.config), "Ray Serve", timeout_seconds=READY_SECONDS
            )
        self.wait()

    def wait(self) -> Node:
        """Wait until every application runs and a worker serves every family; return that worker.

        A node that came back serves nothing until Serve puts a replica there.
        """
        with self.cluster.dashboard() as dashboard:
            wait_until(
                lambda: all_run(dashboard, self.config),
                "Applications",
                timeout_seconds=READY_SECONDS,
            )
        wait_until(
            lambda: any(map(self.answers, self.workers)), "A worker", timeout_seconds=READY_SECONDS
        )
        return next(filter(self.answers, self.workers))

    def answers(self, node: Node) -> bool:
        """Return whether every family is served at a node."""
        try:
            with self.cluster.http(node) as http:
                kinds = [families.get(name) for name in families.names()]
                return all(
                    http.put(f"/predict/{k.route}", json=k.example).is_success for k in kinds
                )
        except httpx.HTTPError:
            return False

    def knows_runs(self) -> bool:
        """Return whether the worker has made or found its database."""
        said = self.workers[0].run(str(BIN / "raysys"), "runs", "list", "--json", code=None)
        return said.lstrip().startswith("[")

    def run_status(self, run: str) -> dict[str, Any]:
        """Return a workflow run, as the command line shows it."""
        said = self.workers[0].run(str(BIN / "raysys"), "runs", "show", run, "--json")
        return dict(json.loads(said))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    reason = unavailable()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("nodes")
    storage = folder / "gcs"
    storage.mkdir()
    # What KubeRay sets for the backend rocksdb.
    kept = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(storage)}
    patient = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
    with Cluster(folder) as cluster:
        cluster.add_node(cpus=0, env=kept)
        workers = [cluster.add_node(cpus=1, resources=RESOURCES, env=patient) for _ in range(2)]
        config = yaml.safe_load(cluster.service["spec"]["serveConfigV2"])
        ground = Ground(cluster, storage, config, workers)
        with cluster.dashboard() as dashboard:
            wait_until(
                lambda: accepts(dashboard, config), "Ray Serve", timeout_seconds=READY_SECONDS
            )
            wait_until(
                lambda: all_run(dashboard, config), "Applications", timeout_seconds=READY_SECONDS
            )
        wait_until(ground.knows_runs, "The worker", timeout_seconds=READY_SECONDS)
        said = workers[0].run(str(BIN / "python"), "-c", MAIN_JOB, timeout=900)
        (line,) = (each for each in said.splitlines() if each.startswith("DONE"))
        assert json.loads(line.removeprefix("DONE")) == dict.fromkeys(families.names(), True)
        for node in workers:
            wait_until(lambda n=node: ground.answers(n), node.name, timeout_seconds=READY_SECONDS)
        yield ground


@dataclass
class Load:
    """A client of one node that asks on and on, each request again until it is answered."""

    url: str
    answered: int = 0
    repeated: int = 0
    longest_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._thread = threading.Thread(target=self._ask_on, name="load")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)

    @property
    def story(self) -> str:
        """What has happened, for who reads the test's output."""
        return (
            f"answered {self.answered}, asked again {self.repeated}, "
            f"longest {self.longest_seconds:.1f} s\n"
        )

    def _ask_on(self) -> None:
        kind = families.get("insurance")
        with httpx.Client(base_url=self.url, timeout=10) as http:
            while not self._stop.wait(BETWEEN_SECONDS):
                began = time.monotonic()
                while not self._answered(http, kind) and time.monotonic() - began < 60:
                    self.repeated += 1
                    self._stop.wait(BETWEEN_SECONDS)
                self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)

    def _answered(self, http: httpx.Client, kind: Any) -> bool:
        try:
            answer = http.put(f"/predict/{kind.route}", json=kind.example)
        except httpx.TransportError:
            return False
        if answer.status_code == 503:
            return False
        if not answer.is_success:
            self.wrong.append(f"{answer.status_code} {answer.text[:200]}")
        self.answered += 1
        return True


def test_replicas_are_on_both_workers_and_not_on_the_head(ground: Ground) -> None:
    with ground.cluster.dashboard() as dashboard:
        found = dashboard.applications()
    places = {
        replica["node_ip"]
        for application in found.values()
        for deployment in application["deployments"].values()
        for replica in deployment["replicas"]
    }
    assert places == {node.address for node in ground.workers}


def test_a_worker_node_that_dies_under_load_loses_no_request(ground: Ground) -> None:
    kept, lost = ground.workers
    with Load(f"http://{kept.address}:8000") as load:
        wait_until(lambda: load.answered > 20, "Load", timeout_seconds=30)
        lost.kill()
        with ground.cluster.dashboard() as dashboard:
            wait_until(lambda: dashboard.resources()["nodes"] == 2, "The loss", timeout_seconds=120)
        before = load.answered
        wait_until(lambda: load.answered > before + 50, "Load", timeout_seconds=60)
        ground.cluster.start(lost, cpus=1, resources=RESOURCES)
        assert ground.wait() is kept
    sys.stdout.write(load.story)
    assert load.wrong == []
    assert load.longest_seconds < 30


def test_a_worker_node_that_dies_in_a_training_loses_nothing(ground: Ground) -> None:
    said = ground.workers[0].run(
        str(BIN / "raysys"), "train", "insurance", "--trials", "4", "--json"
    )
    run = json.loads(said)["id"]
    wait_until(lambda: searching(ground, run) != [], "The search", timeout_seconds=300)
    (lost,) = searching(ground, run)
    lost.kill()
    wait_until(lambda: ended(ground, run), "The training", timeout_seconds=600)
    story = ground.run_status(run)
    assert story["run"]["status"] == "SUCCESSFUL", story
    ground.cluster.start(lost, cpus=1, resources=RESOURCES)
    ground.wait()


def searching(ground: Ground, run: str) -> list[Node]:
    """Return a worker on which the run searches now: the search's own, or, when it is the head, one of its trials'."""
    steps = ground.run_status(run)["steps"]
    places = [str(step["where"]) for step in steps if step["name"] == "search" and step["where"]]
    if not places:
        return []
    # Each trial takes the only CPU of a worker.
    return [n for n in ground.workers if n.address in places[-1]] or ground.workers[:1]


def ended(ground: Ground, run: str) -> bool:
    return ground.run_status(run)["run"]["status"] not in ("RUNNING", "PENDING", "ENQUEUED")


def test_a_head_that_dies_comes_back_with_what_it_knew(ground: Ground) -> None:
    kept = ground.wait()
    with Load(f"http://{kept.address}:8000") as load:
        wait_until(lambda: load.answered > 20, "Load", timeout_seconds=30)
        ground.cluster.head.kill()
        before = load.answered
        wait_until(lambda: load.answered > before + 50, "Load without a head", timeout_seconds=60)
        ground.cluster.start(ground.cluster.head, cpus=0)
        wait_until(
            lambda: ground.cluster.alive_nodes() == 3, "Nodes", timeout_seconds=READY_SECONDS
        )
        ground.wait()  # nobody has given Serve its config again
    sys.stdout.write(load.story)
    assert load.wrong == []
    assert load.longest_seconds < 30
    wait_until(lambda: actors_live(ground), "The actors", timeout_seconds=READY_SECONDS)


def actors_live(ground: Ground) -> bool:
    with ground.cluster.dashboard() as dashboard:
        states = dashboard.actors()
    return [states.get(name) for name in ("raysys-worker", "raysys-watcher")] == ["ALIVE", "ALIVE"]


def test_a_cluster_with_an_empty_store_comes_back_from_the_database(ground: Ground) -> None:
    before = json.loads(ground.workers[0].run(str(BIN / "raysys"), "runs", "list", "--json"))
    for node in (ground.cluster.head, *ground.workers):
        node.kill()
    shutil.rmtree(ground.storage)
    ground.storage.mkdir()
    ground.cluster.start(ground.cluster.head, cpus=0)
    for node in ground.workers:
        ground.cluster.start(node, cpus=1, resources=RESOURCES)
    ground.deploy()
    after = json.loads(ground.workers[0].run(str(BIN / "raysys"), "runs", "list", "--json"))
    assert {r["id"]: r["status"] for r in after} == {r["id"]: r["status"] for r in before}
    wait_until(lambda: actors_live(ground), "The actors", timeout_seconds=READY_SECONDS)
