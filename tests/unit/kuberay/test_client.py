"""The client against a server that speaks the protocol: every verb, every refusal, every wait; nothing is left over."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from kuberay import checks, keys, rollout
from kuberay.api import Api, open_api
from kuberay.client import KubeRay, TimedOut, settled
from raysys.errors import Conflict, Forbidden, InvalidInput, NotFound, RaysysError, Unavailable
from tests.kube_api import READER_TOKEN, TOKEN, Fault, KubeApi

READY = [{"type": "Ready", "status": "True"}, {"type": "UpgradeInProgress", "status": "False"}]
NOT_READY = [{"type": "Ready", "status": "False", "reason": "Initializing"}]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread and no socket is left by a test."""
    import kubernetes.client  # noqa: F401  what importing it opens is not a test's

    threads = set(threading.enumerate())
    sockets = open_sockets()
    yield
    left = [t for t in threading.enumerate() if t not in threads]
    for thread in left:
        thread.join(5)
    assert [t.name for t in left if t.is_alive()] == []
    assert open_sockets() <= sockets


def open_sockets() -> set[Any]:
    return {c.laddr for c in psutil.Process(os.getpid()).net_connections("inet") if c.laddr}


@pytest.fixture
def server() -> Iterator[KubeApi]:
    with KubeApi() as api:
        yield api


def opened(server: KubeApi, token: str = TOKEN, timeout_seconds: float = 5) -> KubeRay:
    from kubernetes.client import ApiClient, Configuration

    configuration = Configuration(host=server.url, api_key={"BearerToken": f"Bearer {token}"})
    configuration.retries = False
    return KubeRay(Api(ApiClient(configuration), timeout_seconds))


@pytest.fixture
def kube(server: KubeApi) -> Iterator[KubeRay]:
    with opened(server) as kube:
        kube.of(NAMESPACE).apply(NAMESPACE)
        yield kube


NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "raysys"}}


def service(name: str = "raysys", **spec: Any) -> dict[str, Any]:
    groups = [
        {"groupName": "serving", "minReplicas": 1, "maxReplicas": 8, "replicas": 2},
        {"groupName": "training", "minReplicas": 0, "maxReplicas": 4, "replicas": 0},
    ]
    template = {"spec": {"containers": [{"name": "ray-head", "image": "raysys:1"}]}}
    cluster = {
        "rayVersion": "2.60.0",
        "headGroupSpec": {"template": template},
        "workerGroupSpecs": groups,
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": name, "namespace": "raysys", "labels": {"app": "raysys"}},
        "spec": {"rayClusterConfig": cluster, "serveConfigV2": "applications: []", **spec},
    }


# -- verbs ---------------------------------------------------------------------------------------


def test_an_object_is_applied_read_listed_and_deleted(kube: KubeRay) -> None:
    assert kube.services.find("raysys") is None
    kube.services.apply(service())
    assert kube.services.get("raysys")["metadata"]["generation"] == 1
    assert kube.services.status("raysys") == {}
    assert [d["metadata"]["name"] for d in kube.services.list("app=raysys")] == ["raysys"]
    assert kube.services.list("app=other") == []
    assert kube.services.delete("raysys", timeout_seconds=5)
    assert not kube.services.delete("raysys")


def test_an_apply_is_strict_and_names_its_manager(kube: KubeRay, server: KubeApi) -> None:
    kube.services.apply(service())
    method, path = server.requests[-1]
    assert method == "PATCH"
    assert "fieldManager=raysys" in path
    assert "fieldValidation=Strict" in path


def test_a_dry_run_changes_nothing(kube: KubeRay, server: KubeApi) -> None:
    kube.services.apply(service())
    after = kube.services.apply(service(serveConfigV2="changed"), dry_run=True)
    assert after["spec"]["serveConfigV2"] == "changed"
    assert server.object("RayService", "raysys")["spec"]["serveConfigV2"] == "applications: []"


def test_a_field_that_is_no_longer_applied_goes(kube: KubeRay) -> None:
    kube.services.apply(service(rayClusterDeletionDelaySeconds=60))
    kube.services.apply(service())
    assert "rayClusterDeletionDelaySeconds" not in kube.services.get("raysys")["spec"]


def test_what_another_manager_owns_is_a_conflict_unless_forced(
    kube: KubeRay, server: KubeApi
) -> None:
    kube.services.apply(service())
    owners = next(o for key, o in server.store.owners.items() if key[1] == "rayservices")
    owners[("spec", "serveConfigV2")] = "kubectl"
    with pytest.raises(Conflict, match="kubectl") as refused:
        kube.services.apply(service(serveConfigV2="mine"), force=False)
    assert refused.value.fields["causes"][0]["field"] == ".spec.serveConfigV2"
    assert kube.services.apply(service(serveConfigV2="mine"))["spec"]["serveConfigV2"] == "mine"


def test_a_stale_version_is_a_conflict(kube: KubeRay) -> None:
    old = kube.services.apply(service())
    kube.services.apply(service(serveConfigV2="newer"))
    stale = service()
    stale["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
    with pytest.raises(Conflict, match="has been modified"):
        kube.services.apply(stale)


def test_a_service_sleeps_and_wakes(kube: KubeRay) -> None:
    kube.services.apply(service())
    assert kube.services.suspend("raysys")["spec"]["suspend"] is True
    assert kube.services.resume("raysys")["spec"]["suspend"] is False


def test_a_group_is_scaled_by_its_name(kube: KubeRay) -> None:
    kube.services.apply(service())
    groups = kube.services.scale("raysys", "training", 3)["spec"]["rayClusterConfig"][
        "workerGroupSpecs"
    ]
    assert [g["replicas"] for g in groups] == [2, 3]


def test_a_group_is_not_scaled_over_its_limit(kube: KubeRay) -> None:
    kube.services.apply(service())
    with pytest.raises(InvalidInput, match="between 0 and 4"):
        kube.services.scale("raysys", "training", 5)
    with pytest.raises(NotFound, match="serving, training"):
        kube.services.scale("raysys", "gpu", 1)


def test_groups_in_another_order_are_read_again(
    kube: KubeRay, server: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube.services.apply(service())
    read, swapped = kube.services.get, []

    def get_then_swap(name: str) -> Any:
        found = yaml.safe_load(yaml.safe_dump(read(name)))
        if not swapped:
            swapped.append(True)
            server.object("RayService", name)["spec"]["rayClusterConfig"][
                "workerGroupSpecs"
            ].reverse()
        return found

    monkeypatch.setattr(kube.services, "get", get_then_swap)
    groups = kube.services.scale("raysys", "training", 3)["spec"]["rayClusterConfig"][
        "workerGroupSpecs"
    ]
    assert {g["groupName"]: g["replicas"] for g in groups} == {"serving": 2, "training": 3}


def test_a_serve_config_is_checked_and_set(kube: KubeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    kube.services.apply(service())
    config = {"applications": [{"name": "a", "import_path": "a:b"}]}
    after = kube.services.set_serve_config("raysys", config)
    assert yaml.safe_load(after["spec"]["serveConfigV2"]) == config
    fault = keys.Fault(("aplications",), "unknown field")
    monkeypatch.setattr(checks, "serve_faults", lambda _config: [fault])
    with pytest.raises(InvalidInput) as refused:
        kube.services.set_serve_config("raysys", {"aplications": []})
    assert refused.value.issues == [{"loc": ["aplications"], "reason": "unknown field"}]


def test_the_lines_of_a_log_come_as_they_are(kube: KubeRay, server: KubeApi) -> None:
    server.logs["head-1"] = ["one", "two", "three"]
    lines = kube.logs("head-1", "ray-head", tail=2, follow=False, timeout_seconds=5)
    assert list(lines) == ["two", "three"]
    with pytest.raises(NotFound):
        list(kube.logs("head-2", "ray-head", tail=2, follow=False, timeout_seconds=5))


# -- refusals ------------------------------------------------------------------------------------


def test_a_missing_object_is_not_found(kube: KubeRay) -> None:
    with pytest.raises(NotFound, match="absent"):
        kube.clusters.get("absent")


def test_an_unknown_field_is_invalid_with_its_path(kube: KubeRay) -> None:
    with pytest.raises(InvalidInput) as refused:
        kube.services.apply(service(serveConfigv2="x"))
    assert refused.value.issues == [{"loc": ["spec.serveConfigv2"], "reason": "unknown field"}]


def test_an_unknown_field_of_a_built_in_kind_is_invalid_too(kube: KubeRay) -> None:
    metadata = {"name": "deny", "namespace": "raysys"}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata}
    with pytest.raises(InvalidInput) as refused:
        kube.of(policy).apply({**policy, "spec": {"podSelectors": {}}})
    assert refused.value.issues == [{"loc": ["spec.podSelectors"], "reason": "unknown field"}]


def test_a_wrong_value_is_invalid_with_its_path(kube: KubeRay) -> None:
    with pytest.raises(InvalidInput) as refused:
        kube.services.apply(service(rayClusterDeletionDelaySeconds=-1))
    (issue,) = refused.value.issues
    assert issue["loc"] == ["spec.rayClusterDeletionDelaySeconds"]
    assert "at least 0" in issue["reason"]


def test_an_object_that_is_there_is_not_created_again(kube: KubeRay) -> None:
    kube.services.create(service())
    with pytest.raises(Conflict, match="already exists"):
        kube.services.create(service())


def test_without_a_token_and_without_rights_it_is_forbidden(server: KubeApi) -> None:
    with opened(server, "wrong") as kube, pytest.raises(Forbidden, match="Log in again") as refused:
        kube.services.list()
    assert refused.value.fields["code"] == 401
    with (
        opened(server, READER_TOKEN) as kube,
        pytest.raises(Forbidden, match="cannot patch") as refused,
    ):
        kube.services.apply(service())
    assert refused.value.fields["code"] == 403


def test_a_kind_that_the_cluster_does_not_know_is_named(kube: KubeRay) -> None:
    monitor = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": "m"},
    }
    with pytest.raises(NotFound, match="operator that brings it"):
        kube.of(monitor)


@pytest.mark.parametrize(
    "fault", [Fault(code=503), Fault(code=429), Fault(code=500), Fault(cut=True)]
)
def test_trouble_of_the_server_is_unavailable(kube: KubeRay, server: KubeApi, fault: Fault) -> None:
    server.faults.append(fault)
    with pytest.raises(Unavailable):
        kube.services.list()
    assert kube.services.list() == []


def test_a_slow_answer_is_unavailable(server: KubeApi) -> None:
    server.faults.append(Fault(wait_seconds=0.6))
    with (
        opened(server, timeout_seconds=0.2) as kube,
        pytest.raises(Unavailable, match="did not answer"),
    ):
        kube.services.list()


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with KubeApi() as server:
        pass
    with opened(server) as kube, pytest.raises(Unavailable, match="kubeconfig"):
        kube.services.list()


def test_errors_survive_pickling(kube: KubeRay) -> None:
    import pickle

    with pytest.raises(TimedOut) as missed:
        kube.services.wait_ready("absent", timeout_seconds=0.2)
    again: RaysysError = pickle.loads(pickle.dumps(missed.value))
    assert type(again) is TimedOut
    assert again.message == missed.value.message


# -- watches and waits ---------------------------------------------------------------------------


def later(seconds: float, *actions: Any) -> threading.Thread:
    """Do things one after another from another thread, with a pause before each."""

    def run() -> None:
        for action in actions:
            time.sleep(seconds)
            action()

    thread = threading.Thread(target=run, name="later")
    thread.start()
    return thread


def ready(server: KubeApi, **status: Any) -> Any:
    return lambda: server.set_status("RayService", "raysys", **{"conditions": READY, **status})


def test_a_wait_ends_when_the_operator_has_seen_the_latest_change(
    kube: KubeRay, server: KubeApi
) -> None:
    kube.services.apply(service())
    ready(server)()
    kube.services.apply(service(serveConfigV2="newer"))
    assert not settled(kube.services.get("raysys"))
    stale = later(0.1, ready(server, observed=False), ready(server))
    done = kube.services.wait_ready("raysys", timeout_seconds=10)
    stale.join()
    assert done["status"]["observedGeneration"] == 2


def test_a_wait_sees_what_is_made_later(kube: KubeRay, server: KubeApi) -> None:
    made = later(0.1, lambda: server_apply(server), ready(server))
    assert kube.services.wait_ready("raysys", timeout_seconds=10)["metadata"]["name"] == "raysys"
    made.join()


def server_apply(server: KubeApi) -> None:
    with opened(server) as kube:
        kube.services.apply(service())


def test_a_wait_that_takes_too_long_says_what_it_saw_last(kube: KubeRay, server: KubeApi) -> None:
    kube.services.apply(service())
    server.set_status("RayService", "raysys", conditions=NOT_READY)
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"Ready=False \(Initializing\)") as missed:
        kube.services.wait_ready("raysys", timeout_seconds=0.5)
    assert time.monotonic() - began < 3
    assert missed.value.status_seen["conditions"] == NOT_READY


def test_an_object_that_is_deleted_meanwhile_ends_the_wait(kube: KubeRay, server: KubeApi) -> None:
    kube.services.apply(service())
    gone = later(0.1, lambda: server_delete(server))
    with pytest.raises(NotFound, match="was deleted"):
        kube.services.wait_ready("raysys", timeout_seconds=10)
    gone.join()


def server_delete(server: KubeApi) -> None:
    with opened(server) as kube:
        kube.services.delete("raysys")


def test_a_watch_survives_cuts_and_trouble(kube: KubeRay, server: KubeApi) -> None:
    kube.services.apply(service())

    def trouble() -> None:
        server.faults += [Fault(code=503), Fault(cut=True), Fault(code=429)]
        server.cut_watches()

    bad = later(0.15, server.cut_watches, trouble, ready(server))
    assert kube.services.wait_ready("raysys", timeout_seconds=10)
    bad.join()


def test_a_watch_that_is_too_old_begins_anew(kube: KubeRay, server: KubeApi) -> None:
    kube.services.apply(service())

    def compacted() -> None:
        server.forget()
        server.cut_watches()

    old = later(0.15, compacted, ready(server))
    assert kube.services.wait_ready("raysys", timeout_seconds=10)
    old.join()
    lists = [path for method, path in server.requests if method == "GET" and "watch" not in path]
    assert len(lists) >= 2


def test_a_watch_tells_every_change_once_and_in_order(kube: KubeRay, server: KubeApi) -> None:
    kube.services.apply(service())

    def change(config: str) -> Any:
        return lambda: server_change(server, config)

    changes = later(
        0.05, change("1"), server.cut_watches, change("2"), lambda: server_delete(server)
    )
    seen = []
    for event in kube.services.watch(name="raysys", timeout_seconds=10):
        seen.append((event.type, event.object["spec"]["serveConfigV2"]))
        if event.type == "DELETED":
            break
    changes.join()
    assert seen == [
        ("ADDED", "applications: []"),
        ("MODIFIED", "1"),
        ("MODIFIED", "2"),
        ("DELETED", "2"),
    ]


def server_change(server: KubeApi, config: str) -> None:
    with opened(server) as kube:
        kube.services.apply(service(serveConfigV2=config))


def test_bookmarks_move_a_watch_on_without_an_event(
    kube: KubeRay, server: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kuberay.client.WATCH_SECONDS", 1)
    kube.services.apply(service())
    for number in range(3):  # other kinds make versions pass by
        kube.of(NAMESPACE).apply({**NAMESPACE, "metadata": {"name": f"other-{number}"}})
    passed = server.store.version
    events = list(kube.services.watch(name="raysys", timeout_seconds=1.8))
    assert [e.type for e in events] == ["ADDED"]
    versions = [
        p.split("resourceVersion=")[1].split("&")[0] for _, p in server.requests if "watch=" in p
    ]
    assert int(versions[-1]) >= passed


def job(name: str = "train") -> dict[str, Any]:
    return {
        **rollout.job(name, "raysys-abc", ["python", "-m", "workflows.train", "a b"], "raysys:1")
    }


@pytest.mark.parametrize("how", ["Complete", "Failed", "ValidationFailed"])
def test_a_job_is_waited_for_until_it_has_ended_in_any_way(
    kube: KubeRay, server: KubeApi, how: str
) -> None:
    kube.jobs.create(job())
    outcome = "SUCCEEDED" if how == "Complete" else "FAILED"
    running = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
    steps = later(
        0.05,
        lambda: server.set_status("RayJob", "train", **running),
        lambda: server.set_status("RayJob", "train", jobDeploymentStatus=how, jobStatus=outcome),
    )
    ended = kube.jobs.wait_ended("train", timeout_seconds=10)
    steps.join()
    assert kube.jobs.succeeded(ended) is (how == "Complete")


def test_a_cluster_is_ready_when_its_pods_are(kube: KubeRay, server: KubeApi) -> None:
    cluster = {**service(), "kind": "RayCluster", "spec": service()["spec"]["rayClusterConfig"]}
    kube.clusters.apply(cluster)
    conditions = [{"type": t, "status": "True"} for t in ("RayClusterProvisioned", "HeadPodReady")]
    server.set_status("RayCluster", "raysys", conditions=conditions[:1])
    with pytest.raises(TimedOut, match="RayClusterProvisioned=True"):
        kube.clusters.wait_ready("raysys", timeout_seconds=0.3)
    server.set_status("RayCluster", "raysys", conditions=conditions)
    assert kube.clusters.wait_ready("raysys", timeout_seconds=5)


# -- rollouts ------------------------------------------------------------------------------------


def quiet(_message: str) -> None:
    pass


def test_a_rollout_that_does_not_become_ready_goes_back(kube: KubeRay, server: KubeApi) -> None:
    kube.services.apply(service(serveConfigV2="good"))
    ready(server)()
    said: list[str] = []

    def operate() -> None:  # the operator makes ready what is good
        document = server.object("RayService", "raysys")
        if document["spec"]["serveConfigV2"] == "good" and not settled(document):
            ready(server)()

    stop = threading.Event()
    operator = threading.Thread(
        target=lambda: [operate() for _ in iter(lambda: stop.wait(0.05), True)]
    )
    operator.start()
    try:
        with pytest.raises(Unavailable, match="Rolled back"):
            rollout.apply_healthy(
                kube,
                [NAMESPACE, service(serveConfigV2="bad")],
                timeout_seconds=1,
                roll_back=True,
                notify=said.append,
            )
    finally:
        stop.set()
        operator.join()
    assert server.object("RayService", "raysys")["spec"]["serveConfigV2"] == "good"
    assert said[-1] == "RayService/raysys is ready"


def test_a_first_rollout_has_nothing_to_go_back_to(kube: KubeRay) -> None:
    with pytest.raises(Unavailable, match="nothing to go back to"):
        rollout.apply_healthy(kube, [service()], timeout_seconds=0.3, roll_back=True, notify=quiet)


def test_a_diff_shows_what_would_change_and_nothing_else(kube: KubeRay, server: KubeApi) -> None:
    kube.services.apply(service())
    ready(server)()
    assert rollout.diff(kube, [NAMESPACE, service()]) == ""
    text = rollout.diff(kube, [service(serveConfigV2="changed")])
    assert "-  serveConfigV2: 'applications: []'" in text
    assert "+  serveConfigV2: changed" in text
    assert len([line for line in text.splitlines() if line.startswith(("+ ", "- "))]) == 2


def test_deleting_an_overlay_keeps_the_namespace_and_the_volume(
    kube: KubeRay, server: KubeApi
) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "a"},
        "spec": {},
    }
    documents = [NAMESPACE, claim, service()]
    rollout.apply(kube, documents, notify=quiet)
    rollout.delete(kube, documents, volumes=False, notify=quiet)
    assert sorted(key[1] for key in server.store.objects) == [
        "namespaces",
        "persistentvolumeclaims",
    ]
    rollout.delete(kube, documents, volumes=True, notify=quiet)
    assert [key[1] for key in server.store.objects] == ["namespaces"]


def test_a_job_quotes_its_command(kube: KubeRay) -> None:
    assert job()["spec"]["entrypoint"] == "python -m workflows.train 'a b'"


# -- who asks ------------------------------------------------------------------------------------


def test_the_kubeconfig_of_the_environment_is_used(
    server: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    with open_api("x") as api:
        assert KubeRay(api).services.list() == []


def test_without_any_cluster_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = str(tmp_path / "absent")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", absent)
    with pytest.raises(Unavailable, match="Set KUBECONFIG"):
        open_api()


def test_the_account_of_the_pod_is_used_inside_a_cluster(
    server: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubernetes.config import incluster_config

    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text(TOKEN)
    authority.write_text("no authority")
    monkeypatch.setattr("kuberay.api.SERVICE_ACCOUNT", token)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    given: list[Any] = []
    monkeypatch.setattr(
        "kubernetes.client.ApiClient", lambda configuration: given.append(configuration)
    )
    open_api()
    assert given[0].host == "https://10.0.0.1:443"
    assert given[0].api_key
