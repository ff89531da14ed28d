"""Faults that are planted in good manifests are refused, with their path and a reason."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kuberay import checks, manifests
from raysys.errors import InvalidInput

Document = dict[str, Any]
CLUSTER = ("spec", "rayClusterConfig")
MISSING = object()


@pytest.fixture(scope="session")
def good() -> dict[str, Document]:
    documents = manifests.render(manifests.folder_of("production"))
    return {document["kind"]: document for document in documents}


def planted(document: Document, path: tuple[str | int, ...], value: Any) -> Document:
    document = copy.deepcopy(document)
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    if value is MISSING:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


# Where, what is put there (or taken away), the path of the fault, and what is said.
IN_SERVICE: dict[str, tuple[tuple[str | int, ...], Any, str, str]] = {
    "a misspelt field": (
        ("spec", "serveConfigv2"),
        "x",
        "spec.serveConfigv2",
        "is serveConfigV2 meant",
    ),
    "a misspelt field of a container": (
        (*CLUSTER, "headGroupSpec", "template", "spec", "containers", 0, "imagePulPolicy"),
        "Always",
        "spec.rayClusterConfig.headGroupSpec.template.spec.containers.0.imagePulPolicy",
        "is imagePullPolicy meant",
    ),
    "a Python name of a field": (
        (*CLUSTER, "headGroupSpec", "template", "spec", "containers", 0, "image_pull_policy"),
        "Always",
        "image_pull_policy",
        "unknown field",
    ),
    "authOptions without a mode": (
        (*CLUSTER, "authOptions", "mode"),
        MISSING,
        "spec.rayClusterConfig.authOptions.mode",
        "leave the cluster open",
    ),
    "no authOptions": ((*CLUSTER, "authOptions"), MISSING, "authOptions", "is missing"),
    "no fixed secret": (
        (*CLUSTER, "authOptions", "secretName"),
        MISSING,
        "secretName",
        "another token",
    ),
    "a wrong strategy": (
        ("spec", "upgradeStrategy", "type"),
        "BlueGreen",
        "spec.upgradeStrategy.type",
        "NewCluster",
    ),
    "an incremental upgrade without options": (
        ("spec", "upgradeStrategy", "type"),
        "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions",
        "is missing",
    ),
    "a name over the limit": (("metadata", "name"), "r" * 48, "metadata.name", "may have 47"),
    "a name with a capital": (("metadata", "name"), "Raysys", "metadata.name", "lower-case"),
    "an old Ray": ((*CLUSTER, "rayVersion"), "2.47.1", "spec.rayClusterConfig.rayVersion", "newer"),
    "an empty Serve config": (
        ("spec", "serveConfigV2"),
        "",
        "spec.serveConfigV2",
        "never become ready",
    ),
    "a Serve config that is no YAML": (
        ("spec", "serveConfigV2"),
        "a: [",
        "serveConfigV2",
        "not YAML",
    ),
    "a number for a Ray parameter": (
        (*CLUSTER, "headGroupSpec", "rayStartParams", "num-cpus"),
        0,
        "rayStartParams.num-cpus",
        "string",
    ),
    "labels among Ray's parameters": (
        (*CLUSTER, "headGroupSpec", "rayStartParams", "labels"),
        "a=b",
        "rayStartParams.labels",
        "use the field labels",
    ),
    "resources twice": (
        (*CLUSTER, "workerGroupSpecs", 0, "rayStartParams"),
        {"num-cpus": "1"},
        "workerGroupSpecs.0.rayStartParams.num-cpus",
        "field resources",
    ),
    "fewer than the least": (
        (*CLUSTER, "workerGroupSpecs", 0, "replicas"),
        1,
        "workerGroupSpecs.0.replicas",
        "2 to 8",
    ),
    "more at least than at most": (
        (*CLUSTER, "workerGroupSpecs", 0, "minReplicas"),
        9,
        "workerGroupSpecs.0.minReplicas",
        "more than maxReplicas",
    ),
    "two groups of one name": (
        (*CLUSTER, "workerGroupSpecs", 1, "groupName"),
        "serving",
        "workerGroupSpecs.1.groupName",
        "two groups",
    ),
    "a restart policy under autoscaler v2": (
        (*CLUSTER, "workerGroupSpecs", 0, "template", "spec", "restartPolicy"),
        "Always",
        "restartPolicy",
        "must be Never",
    ),
    "an idle time-out under autoscaler v1": (
        (*CLUSTER, "autoscalerOptions"),
        {"version": "v1"},
        "workerGroupSpecs.0.idleTimeoutSeconds",
        "version: v2",
    ),
    "an address of Redis for RocksDB": (
        (*CLUSTER, "gcsFaultToleranceOptions", "redisAddress"),
        "redis:6379",
        "gcsFaultToleranceOptions.redisAddress",
        "does not go with",
    ),
    "a size for a claim that exists": (
        (*CLUSTER, "gcsFaultToleranceOptions", "storage", "claimName"),
        "mine",
        "gcsFaultToleranceOptions.storage.size",
        "does not go with claimName",
    ),
    "ports without Serve's": (
        (*CLUSTER, "headGroupSpec", "template", "spec", "containers", 0, "ports"),
        [{"name": "gcs", "containerPort": 6379}],
        "containers.0.ports",
        "none called serve",
    ),
    "a variable of the operator": (
        (*CLUSTER, "headGroupSpec", "template", "spec", "containers", 0, "env"),
        [{"name": "RAY_gcs_storage", "value": "rocksdb"}],
        "containers.0.env.0",
        "the operator's",
    ),
    "tokens of Kubernetes": (
        (*CLUSTER, "authOptions", "enableK8sTokenAuth"),
        True,
        "enableK8sTokenAuth",
        "refused for a RayService",
    ),
    "an upgrade strategy of a cluster": (
        (*CLUSTER, "upgradeStrategy"),
        {"type": "Recreate"},
        "rayClusterConfig.upgradeStrategy",
        "of your own",
    ),
    "rules for a way that is not denied": (
        (*CLUSTER, "networkPolicy"),
        {"mode": "DenyAllIngress", "worker": {"egressRules": []}},
        "networkPolicy.worker.egressRules",
        "does not deny",
    ),
}


@pytest.mark.parametrize("case", IN_SERVICE)
def test_a_fault_of_a_service_is_refused_with_its_path(
    good: dict[str, Document], case: str
) -> None:
    path, value, where, said = IN_SERVICE[case]
    document = planted(good["RayService"], path, value)
    if case.startswith("an idle"):
        document["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["idleTimeoutSeconds"] = 60
    with pytest.raises(InvalidInput) as refused:
        checks.check([document])
    found = {".".join(map(str, i["loc"])): i["reason"] for i in refused.value.issues}
    reason = next((r for loc, r in found.items() if loc.endswith(where)), f"nothing: {found}")
    assert said in reason


IN_OTHERS = {
    "a misspelt field of a policy": (
        "NetworkPolicy",
        ("spec", "policyType"),
        ["Ingress"],
        "policyTypes",
    ),
    "a wrong type": ("Deployment", ("spec", "replicas"), "two", "spec.replicas"),
    "a missing field": ("Deployment", ("spec", "selector"), MISSING, "spec.selector"),
    "a misspelt kind": ("Service", ("kind",), "Servise", "kind"),
}


@pytest.mark.parametrize("case", IN_OTHERS)
def test_a_fault_of_another_kind_is_refused(good: dict[str, Document], case: str) -> None:
    kind, path, value, said = IN_OTHERS[case]
    with pytest.raises(InvalidInput) as refused:
        checks.check([planted(good[kind], path, value)])
    assert any(
        said in f"{i['loc']} {i['reason']}".replace("', '", ".") for i in refused.value.issues
    )


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidInput, match="1 faults"):
        checks.check([{"apiVersion": "v1"}])


def job(**spec: Any) -> Document:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": "train"},
        "spec": {"entrypoint": "true", "clusterSelector": {"ray.io/cluster": "c"}, **spec},
    }


def cron(**spec: Any) -> Document:
    template = job()["spec"]
    given = {"schedule": "0 3 * * *", "jobTemplate": template, **spec}
    return {**job(), "kind": "RayCronJob", "spec": given}


JOBS = {
    "neither cluster nor selector": (job(clusterSelector=MISSING), "needs one of"),
    "no entrypoint": (job(entrypoint=MISSING), "is missing"),
    "a wrong mode": (job(submissionMode="K8sJob"), "K8sJobMode"),
    "a sidecar in a cluster that runs": (
        job(submissionMode="SidecarMode"),
        "SidecarMode does not go",
    ),
    "retries in a cluster that runs": (job(backoffLimit=2), "clusterSelector"),
    "asleep in a cluster that runs": (job(suspend=True), "shutdownAfterJobFinishes"),
    "a time to live without an end": (job(ttlSecondsAfterFinished=60), "shutdownAfterJobFinishes"),
    "a selector without the cluster": (job(clusterSelector={"a": "b"}), "ray.io/cluster"),
    "half a deletion strategy": (
        job(deletionStrategy={"onSuccess": {"policy": "DeleteNone"}}),
        "either",
    ),
    "a deletion on no condition": (
        job(deletionStrategy={"deletionRules": [{"policy": "DeleteSelf", "condition": {}}]}),
        "needs one of jobStatus",
    ),
    "six fields of cron": (cron(schedule="0 0 3 * * *"), "five fields"),
    "a zone in the schedule": (cron(schedule="TZ=UTC 0 3 * * *"), "use timeZone"),
    "a fault in a template": (cron(jobTemplate={"entrypoint": "true"}), "needs one of"),
}


@pytest.mark.parametrize("case", JOBS)
def test_a_fault_of_a_job_is_refused(case: str) -> None:
    document, said = JOBS[case]
    document["spec"] = {k: v for k, v in document["spec"].items() if v is not MISSING}
    with pytest.raises(InvalidInput) as refused:
        checks.check([document])
    assert said in " ".join(i["reason"] for i in refused.value.issues)


def test_good_jobs_pass() -> None:
    checks.check([job(), cron(), cron(schedule="@daily", timeZone="Asia/Seoul")])
