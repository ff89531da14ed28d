"""A bare `ray start --head` that is given nothing but the manifests' environment and Serve config comes up whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from raysys import families
from raysys.laptop.processes import wait_until
from raysys.registry import Registry
from tests.e2e.kube_nodes import API_TOKEN, BIN, RAY_TOKEN, Cluster, Node, unavailable
from tests.ray.serving_ground import register, scaled_model

READY_SECONDS = 300.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    reason = unavailable()
    if reason:
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("kube")) as cluster:
        cluster.add_node(cpus=2, resources='{"serving": 2}')
        config = yaml.safe_load(cluster.service["spec"]["serveConfigV2"])
        with cluster.dashboard() as dashboard:
            wait_until(
                lambda: accepts(dashboard, config), "Ray Serve", timeout_seconds=READY_SECONDS
            )
            wait_until(
                lambda: all_run(dashboard, config),
                "The applications",
                timeout_seconds=READY_SECONDS,
            )
        yield cluster


def accepts(dashboard: Any, config: dict[str, Any]) -> bool:
    from raysys.errors import Unavailable

    try:
        dashboard.deploy(config)
    except Unavailable:
        return False
    return True


def all_run(dashboard: Any, config: dict[str, Any]) -> bool:
    states = {name: found["status"] for name, found in dashboard.applications().items()}
    assert "DEPLOY_FAILED" not in states.values(), dashboard.applications()
    return states == {a["name"]: "RUNNING" for a in config["applications"]}


@pytest.fixture
def head(cluster: Cluster) -> Node:
    return cluster.head


def raysys(head: Node, *words: str) -> Any:
    return json.loads(head.run(str(BIN / "raysys"), *words, "--json"))


def test_watcher_and_worker_come_up(cluster: Cluster) -> None:
    with cluster.dashboard() as dashboard:
        wait_until(
            lambda: (
                dashboard.actors().items()
                >= {("raysys-worker", "ALIVE"), ("raysys-watcher", "ALIVE")}
            ),
            "The actors",
            timeout_seconds=READY_SECONDS,
        )


def test_the_databases_are_made_and_the_schedules_are_there(head: Node) -> None:
    wait_until(
        lambda: "train-insurance" in head.run(str(BIN / "raysys"), "schedules", "list", code=None),
        "The schedules",
        timeout_seconds=READY_SECONDS,
    )
    assert {s["name"] for s in raysys(head, "schedules", "list")} >= {"crawl-atmos", "train-atmos"}
    assert raysys(head, "data", "show", "insurance")["rows"] == 0


def test_a_champion_of_the_registry_is_served(cluster: Cluster, head: Node) -> None:
    settings = cluster.settings()
    version = register(settings, "insurance", scaled_model("insurance", 1.0))
    with cluster.http(head) as http:
        assert http.get("/readyz").status_code == 503  # no model, not ready
        with Registry(settings.tracking_uri) as registry:
            registry.set_alias("insurance", "champion", version)
        example = families.get("insurance").example
        wait_until(
            lambda: http.put("/predict/insurance", json=example).is_success,
            "The champion",
            timeout_seconds=60,
        )
        answer = http.put("/predict/insurance", json=example).json()
        assert answer["model"] == {"name": "insurance", "version": version}


# As KubeRay 1.7 writes them into Pods of a RayService that have none of their own.
PROBES = (
    "wget --tries 1 -T 5 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success",
    "wget --tries 1 -T 5 -q -O- http://localhost:8000/-/healthz | grep success",
    "wget --tries 1 -T 5 -q -O- http://localhost:52365/api/healthz",
    "wget --tries 1 -T 5 -q -O- http://localhost:8265/api/gcs_healthz | grep success",
)


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_of_kuberay_passes(head: Node, probe: str) -> None:
    if shutil.which("wget") is None:
        pytest.skip("there is no wget")
    head.run("bash", "-c", probe)


GUARDED = (
    "/api/version",
    "/api/jobs/",
    "/api/serve/applications/",
    "/api/v0/nodes",
    "/nodes?view=summary",
)


@pytest.mark.parametrize("path", GUARDED)
def test_the_dashboard_asks_for_the_token(cluster: Cluster, path: str) -> None:
    with httpx.Client(base_url=f"http://{cluster.head.address}:8265", timeout=30) as http:
        assert http.get(path).status_code == 401
        assert http.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 403
        assert http.get(path, headers={"Authorization": f"Bearer {RAY_TOKEN}"}).is_success


def test_code_is_not_run_without_the_token(cluster: Cluster) -> None:
    with httpx.Client(base_url=f"http://{cluster.head.address}:8265", timeout=30) as http:
        assert http.post("/api/jobs/", json={"entrypoint": "touch /tmp/x"}).status_code == 401
        assert http.put("/api/serve/applications/", json={"applications": []}).status_code == 401
        assert http.delete("/api/serve/applications/").status_code == 401


def test_admin_asks_for_its_own_token(cluster: Cluster, head: Node) -> None:
    with cluster.http(head) as http:
        assert http.get("/admin/models").status_code == 401
        assert http.post("/admin/train/insurance").status_code == 401
        wrong = {"Authorization": f"Bearer {RAY_TOKEN}"}
        assert http.get("/admin/models", headers=wrong).status_code in (401, 403)
        assert http.get(
            "/admin/models", headers={"Authorization": f"Bearer {API_TOKEN}"}
        ).is_success


def test_with_the_token_rays_own_commands_work(head: Node) -> None:
    address = f"http://{head.address}:8265"
    said = head.run(str(BIN / "serve"), "status", "--address", address)
    assert set(yaml.safe_load(said)["applications"]) == {"gateway", *families.names()}
    words = ("--runtime-env-json", '{"env_vars": {"RAYSYS_SEED": "42"}}', "--", "python", "-c")
    code = "import workflows.train; from raysys.settings import Settings; print('seed', Settings().seed)"
    said = head.run(str(BIN / "ray"), "job", "submit", "--address", address, *words, code)
    assert "seed 42" in said
    head.environment = {k: v for k, v in head.environment.items() if k != "RAY_AUTH_TOKEN"}
    refused = head.run(str(BIN / "ray"), "job", "list", "--address", address, code=None)
    head.environment["RAY_AUTH_TOKEN"] = RAY_TOKEN
    assert "401" in refused or "token" in refused.lower()
