"""The rules of KubeRay 1.7 across fields, which no schema holds: what the operator would refuse, or silently do wrong.

Each rule gets plain documents that have passed their model, and yields faults.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kuberay.keys import Fault

Loc = tuple[str | int, ...]
Spec = dict[str, Any]

NAME_LIMITS = {"RayCluster": 53, "RayService": 47, "RayJob": 47, "RayCronJob": 36}
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
CLUSTER_AT = {
    "RayCluster": ("spec",),
    "RayService": ("spec", "rayClusterConfig"),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayCronJob": ("spec", "jobTemplate", "rayClusterSpec"),
}
LEAST_FOR_TOKENS = (2, 52)
LEAST_FOR_K8S_TOKENS = (2, 55)
LEAST_FOR_ROCKSDB = (2, 57)
OPERATORS_OWN = {"RAY_enable_autoscaler_v2", "RAY_gcs_storage", "RAY_gcs_storage_path"}


def faults(document: dict[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with a custom resource of KubeRay."""
    kind, spec = document["kind"], document["spec"]
    yield from _name(kind, document["metadata"])
    at = CLUSTER_AT[kind]
    cluster = _at(document, at)
    if cluster is not None:
        yield from _cluster(cluster, at, kind)
    if kind == "RayService":
        yield from _service(spec, ("spec",))
    elif kind == "RayJob":
        yield from _job(spec, ("spec",))
    elif kind == "RayCronJob":
        yield from _cron_job(spec, ("spec",))


def _at(document: Any, path: Loc) -> Any:
    for key in path:
        document = (document or {}).get(key)
    return document


def _name(kind: str, metadata: Spec) -> Iterator[Fault]:
    name = str(metadata.get("name", ""))
    limit = NAME_LIMITS[kind]
    loc: Loc = ("metadata", "name")
    if len(name) > limit:
        yield Fault(loc, f"has {len(name)} characters; a {kind} may have {limit}")
    if not NAME.fullmatch(name):
        yield Fault(loc, "must be lower-case letters, digits and -, beginning with a letter")


def _version(cluster: Spec) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", cluster.get("rayVersion") or "")
    return tuple(map(int, found.groups())) if found else (0, 0)


# -- a cluster -----------------------------------------------------------------------------------


def _cluster(cluster: Spec, loc: Loc, kind: str) -> Iterator[Fault]:
    yield from _auth(cluster, loc, kind)
    yield from _autoscaler(cluster, loc)
    yield from _fault_tolerance(cluster, loc)
    yield from _network(cluster, loc)
    yield from _group(cluster["headGroupSpec"], (*loc, "headGroupSpec"))
    yield from _workers(cluster, loc)
    if "upgradeStrategy" in cluster and kind != "RayCluster":
        yield Fault((*loc, "upgradeStrategy"), f"belongs to a RayCluster of your own, not a {kind}")
    ports = [p.get("name", "") for p in _ports(cluster["headGroupSpec"])]
    if kind == "RayService" and ports and not any(p.startswith("serve") for p in ports):
        yield Fault(
            (*loc, "headGroupSpec", "template", "spec", "containers", 0, "ports"),
            "names ports, but none called serve: the Service of Serve would have none",
        )


def _auth(cluster: Spec, loc: Loc, kind: str) -> Iterator[Fault]:
    options, at = cluster.get("authOptions"), (*loc, "authOptions")
    if options is None:
        yield Fault(at, "is missing: anybody who reaches the cluster could run code on it")
        return
    if "mode" not in options:
        yield Fault((*at, "mode"), "is missing: KubeRay would leave the cluster open; write token")
    if options.get("mode") == "token" and _version(cluster) < LEAST_FOR_TOKENS:
        yield Fault((*loc, "rayVersion"), "must be given, and be 2.52 or newer, for tokens")
    if options.get("mode") == "token" and kind == "RayService" and not options.get("secretName"):
        yield Fault((*at, "secretName"), "is missing: each upgrade would make another token")
    if options.get("enableK8sTokenAuth"):
        if kind != "RayCluster":
            yield Fault((*at, "enableK8sTokenAuth"), f"is refused for a {kind}")
        elif _version(cluster) < LEAST_FOR_K8S_TOKENS:
            yield Fault((*at, "enableK8sTokenAuth"), "needs Ray 2.55 or newer")


def _autoscaler(cluster: Spec, loc: Loc) -> Iterator[Fault]:
    options = cluster.get("autoscalerOptions") or {}
    if options and not cluster.get("enableInTreeAutoscaling"):
        yield Fault((*loc, "autoscalerOptions"), "do nothing without enableInTreeAutoscaling: true")
    if cluster.get("enableInTreeAutoscaling") and options.get("version") == "v2":
        return
    for index, group in enumerate(cluster.get("workerGroupSpecs") or ()):
        for field in ("idleTimeoutSeconds", "priority"):
            if field in group:
                reason = "needs autoscalerOptions.version: v2 and enableInTreeAutoscaling: true"
                yield Fault((*loc, "workerGroupSpecs", index, field), reason)


def _fault_tolerance(cluster: Spec, loc: Loc) -> Iterator[Fault]:
    options = cluster.get("gcsFaultToleranceOptions")
    if options is None:
        return
    at = (*loc, "gcsFaultToleranceOptions")
    rocksdb = options.get("backend") == "rocksdb"
    if rocksdb and _version(cluster) < LEAST_FOR_ROCKSDB:
        yield Fault((*loc, "rayVersion"), "must be 2.57 or newer for the backend rocksdb")
    foreign = [k for k in options if k.startswith("redis")] if rocksdb else ["storage"]
    for field in foreign:
        if field in options:
            yield Fault(
                (*at, field), f"does not go with the backend {'rocksdb' if rocksdb else 'redis'}"
            )
    if not rocksdb and not options.get("redisAddress"):
        yield Fault((*at, "redisAddress"), "is missing")
    storage = options.get("storage") or {}
    for field in {"size", "storageClassName", "accessModes"} & storage.keys():
        if "claimName" in storage:
            yield Fault((*at, "storage", field), "does not go with claimName")


def _network(cluster: Spec, loc: Loc) -> Iterator[Fault]:
    options = cluster.get("networkPolicy") or {}
    open_ways = {"DenyAllIngress": "egressRules", "DenyAllEgress": "ingressRules"}
    field = open_ways.get(options.get("mode", ""))
    for part in ("head", "worker"):
        if field and field in (options.get(part) or {}):
            reason = f"the mode {options['mode']} does not deny that way"
            yield Fault((*loc, "networkPolicy", part, field), reason)


def _workers(cluster: Spec, loc: Loc) -> Iterator[Fault]:
    v2 = (cluster.get("autoscalerOptions") or {}).get("version") == "v2"
    seen: set[str] = set()
    for index, group in enumerate(cluster.get("workerGroupSpecs") or ()):
        at = (*loc, "workerGroupSpecs", index)
        if group["groupName"] in seen:
            yield Fault((*at, "groupName"), f"there are two groups called {group['groupName']}")
        seen.add(group["groupName"])
        yield from _group(group, at)
        yield from _counts(group, at)
        policy = _at(group, ("template", "spec")).get("restartPolicy", "Never")
        if v2 and policy != "Never":
            yield Fault((*at, "template", "spec", "restartPolicy"), "must be Never, or not given")


def _counts(group: Spec, at: Loc) -> Iterator[Fault]:
    least, most = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
    if least > most:
        yield Fault((*at, "minReplicas"), f"{least} is more than maxReplicas, {most}")
    elif not least <= group.get("replicas", least) <= most:
        yield Fault(
            (*at, "replicas"), f"lies outside minReplicas and maxReplicas, {least} to {most}"
        )


def _group(group: Spec, at: Loc) -> Iterator[Fault]:
    parameters = group.get("rayStartParams") or {}
    if "labels" in parameters:
        yield Fault((*at, "rayStartParams", "labels"), "is refused: use the field labels")
    if "resources" in group:
        for field in {"resources", "num-cpus", "num-gpus", "memory"} & parameters.keys():
            yield Fault((*at, "rayStartParams", field), "does not go with the field resources")
    for number, container in enumerate(_at(group, ("template", "spec", "containers")) or ()):
        for place, variable in enumerate(container.get("env") or ()):
            if variable["name"] in OPERATORS_OWN:
                where = ("template", "spec", "containers", number, "env", place)
                yield Fault((*at, *where), f"{variable['name']} is the operator's to set")


def _ports(group: Spec) -> list[Spec]:
    containers = _at(group, ("template", "spec", "containers")) or [{}]
    return list(containers[0].get("ports") or ())


# -- services and jobs ---------------------------------------------------------------------------


def _service(spec: Spec, loc: Loc) -> Iterator[Fault]:
    strategy = spec.get("upgradeStrategy") or {}
    options, at = strategy.get("clusterUpgradeOptions"), (*loc, "upgradeStrategy")
    incremental = strategy.get("type") == "NewClusterWithIncrementalUpgrade"
    if incremental and options is None:
        yield Fault((*at, "clusterUpgradeOptions"), "is missing")
    if incremental and not spec["rayClusterConfig"].get("enableInTreeAutoscaling"):
        yield Fault((*at, "type"), "needs enableInTreeAutoscaling: true")
    if options is not None and not incremental:
        yield Fault((*at, "clusterUpgradeOptions"), "needs NewClusterWithIncrementalUpgrade")
    if options is not None and options["stepSizePercent"] > options.get("maxSurgePercent", 100):
        yield Fault((*at, "clusterUpgradeOptions", "stepSizePercent"), "is above maxSurgePercent")
    if not (spec.get("serveConfigV2") or "").strip():
        yield Fault((*loc, "serveConfigV2"), "is empty: the service would never become ready")


def _job(spec: Spec, loc: Loc) -> Iterator[Fault]:
    selected, made = "clusterSelector" in spec, "rayClusterSpec" in spec
    mode = spec.get("submissionMode", "K8sJobMode")
    if selected == made:
        yield Fault(loc, "needs one of rayClusterSpec and clusterSelector")
    if not spec.get("entrypoint") and mode != "InteractiveMode":
        yield Fault((*loc, "entrypoint"), "is missing")
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        yield Fault((*loc, "ttlSecondsAfterFinished"), "needs shutdownAfterJobFinishes: true")
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        yield Fault((*loc, "suspend"), "needs shutdownAfterJobFinishes: true")
    yield from _existing_cluster(spec, loc, mode)
    if mode == "SidecarMode":
        for field in {"submitterPodTemplate", "submitterConfig"} & spec.keys():
            yield Fault((*loc, field), "does not go with SidecarMode")
    if "deletionStrategy" in spec:
        yield from _deletion(spec, (*loc, "deletionStrategy"))


def _existing_cluster(spec: Spec, loc: Loc, mode: str) -> Iterator[Fault]:
    if "clusterSelector" not in spec:
        return
    if "ray.io/cluster" not in spec["clusterSelector"]:
        yield Fault((*loc, "clusterSelector"), "must name the cluster by ray.io/cluster")
    for field in ("suspend", "backoffLimit", "shutdownAfterJobFinishes"):
        if spec.get(field):
            yield Fault((*loc, field), "does not go with clusterSelector")
    if mode == "SidecarMode":
        yield Fault((*loc, "submissionMode"), "SidecarMode does not go with clusterSelector")


def _deletion(spec: Spec, loc: Loc) -> Iterator[Fault]:
    strategy = spec["deletionStrategy"]
    rules = strategy.get("deletionRules")
    if (rules is None) == ("onSuccess" not in strategy or "onFailure" not in strategy):
        yield Fault(loc, "needs either deletionRules, or onSuccess and onFailure")
        return
    for field in {"shutdownAfterJobFinishes", "ttlSecondsAfterFinished"} & spec.keys():
        if rules is not None and spec[field]:
            yield Fault(("spec", field), "does not go with deletionRules")
    for index, rule in enumerate(rules or ()):
        condition = rule["condition"]
        if ("jobStatus" in condition) == ("jobDeploymentStatus" in condition):
            at = (*loc, "deletionRules", index, "condition")
            yield Fault(at, "needs one of jobStatus and jobDeploymentStatus")


def _cron_job(spec: Spec, loc: Loc) -> Iterator[Fault]:
    schedule = spec["schedule"]
    if "TZ=" in schedule:
        yield Fault((*loc, "schedule"), "must not hold a zone: use timeZone")
    elif len(schedule.split()) != 5 and not schedule.startswith("@"):
        yield Fault((*loc, "schedule"), "must have the five fields of cron")
    yield from _job(spec["jobTemplate"], (*loc, "jobTemplate"))
