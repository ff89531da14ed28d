"""The kinds of KubeRay 1.7 as strict models: which fields there are and what each may hold; no rule across fields.

Pods, Services and what is in them are models of the `kubernetes` package, which costs a second to import: import this
module where it is used.
"""

from __future__ import annotations

from typing import Any, Literal

from kubernetes.client import models as k8s
from pydantic import BaseModel, ConfigDict

GROUP = "ray.io"
API_VERSION = f"{GROUP}/v1"


class Part(BaseModel):
    """A part of a custom resource; a field that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


class AuthOptions(Part):
    mode: Literal["disabled", "token"] | None = None
    secretName: str | None = None
    enableK8sTokenAuth: bool | None = None


class AutoscalerOptions(Part):
    args: list[str] | None = None
    command: list[str] | None = None
    env: list[k8s.V1EnvVar] | None = None
    envFrom: list[k8s.V1EnvFromSource] | None = None
    idleTimeoutSeconds: int | None = None
    image: str | None = None
    imagePullPolicy: str | None = None
    resources: k8s.V1ResourceRequirements | None = None
    securityContext: k8s.V1SecurityContext | None = None
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] | None = None
    version: Literal["v1", "v2"] | None = None
    volumeMounts: list[k8s.V1VolumeMount] | None = None


class RedisCredential(Part):
    value: str | None = None
    valueFrom: k8s.V1EnvVarSource | None = None


class GcsStorage(Part):
    accessModes: list[str] | None = None
    claimName: str | None = None
    deletionPolicy: Literal["DeleteWithCluster", "Retain"] | None = None
    size: str | int | None = None
    storageClassName: str | None = None
    subPath: str | None = None


class GcsFaultToleranceOptions(Part):
    backend: Literal["redis", "rocksdb"] | None = None
    externalStorageNamespace: str | None = None
    redisAddress: str | None = None
    redisPassword: RedisCredential | None = None
    redisUsername: RedisCredential | None = None
    storage: GcsStorage | None = None


class IngressOptions(Part):
    host: str | None = None
    path: str | None = None
    pathType: Literal["Exact", "Prefix", "ImplementationSpecific"] | None = None
    tls: list[k8s.V1IngressTLS] | None = None


class HeadGroupSpec(Part):
    template: k8s.V1PodTemplateSpec
    enableIngress: bool | None = None
    headService: k8s.V1Service | None = None
    ingressOptions: IngressOptions | None = None
    labels: dict[str, str] | None = None
    rayStartParams: dict[str, str] | None = None
    resources: dict[str, str] | None = None
    serviceType: str | None = None


class ScaleStrategy(Part):
    workersToDelete: list[str] | None = None


class WorkerGroupSpec(Part):
    groupName: str
    template: k8s.V1PodTemplateSpec
    idleTimeoutSeconds: int | None = None
    labels: dict[str, str] | None = None
    maxReplicas: int | None = None
    minReplicas: int | None = None
    numOfHosts: int | None = None
    priority: int | None = None
    rayStartParams: dict[str, str] | None = None
    replicas: int | None = None
    resources: dict[str, str] | None = None
    scaleStrategy: ScaleStrategy | None = None
    suspend: bool | None = None


class CollectorOptions(Part):
    env: list[k8s.V1EnvVar] | None = None
    image: str | None = None
    imagePullPolicy: str | None = None
    resources: k8s.V1ResourceRequirements | None = None


class HistoryServerOptions(Part):
    collectorOptions: CollectorOptions | None = None


class PolicyRules(Part):
    ingressRules: list[k8s.V1NetworkPolicyIngressRule] | None = None
    egressRules: list[k8s.V1NetworkPolicyEgressRule] | None = None


class GroupPolicyRules(PolicyRules):
    groupName: str


class NetworkPolicyOptions(Part):
    mode: Literal["DenyAll", "DenyAllIngress", "DenyAllEgress"] | None = None
    head: PolicyRules | None = None
    worker: PolicyRules | None = None
    workerGroups: list[GroupPolicyRules] | None = None


class TlsOptions(Part):
    enabled: bool | None = None


class ClusterUpgradeStrategy(Part):
    type: Literal["Recreate", "None"] | None = None


class RayClusterSpec(Part):
    headGroupSpec: HeadGroupSpec
    authOptions: AuthOptions | None = None
    autoscalerOptions: AutoscalerOptions | None = None
    enableInTreeAutoscaling: bool | None = None
    gcsFaultToleranceOptions: GcsFaultToleranceOptions | None = None
    headServiceAnnotations: dict[str, str] | None = None
    historyServerOptions: HistoryServerOptions | None = None
    managedBy: Literal["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"] | None = None
    networkPolicy: NetworkPolicyOptions | None = None
    rayVersion: str | None = None
    suspend: bool | None = None
    tlsOptions: TlsOptions | None = None
    upgradeStrategy: ClusterUpgradeStrategy | None = None
    workerGroupSpecs: list[WorkerGroupSpec] | None = None


class ClusterUpgradeOptions(Part):
    gatewayClassName: str
    stepSizePercent: int
    intervalSeconds: int
    maxSurgePercent: int | None = None


class ServiceUpgradeStrategy(Part):
    # The CRD has no enum here: the API server takes any misspelling.
    type: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"] | None = None
    clusterUpgradeOptions: ClusterUpgradeOptions | None = None


class RayServiceSpec(Part):
    rayClusterConfig: RayClusterSpec
    deploymentUnhealthySecondThreshold: int | None = None
    excludeHeadPodFromServeSvc: bool | None = None
    managedBy: Literal["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"] | None = None
    rayClusterDeletionDelaySeconds: int | None = None
    serveConfigV2: str | None = None
    serveService: k8s.V1Service | None = None
    serviceUnhealthySecondThreshold: int | None = None
    suspend: bool | None = None
    upgradeStrategy: ServiceUpgradeStrategy | None = None


DeletionPolicy = Literal["DeleteCluster", "DeleteWorkers", "DeleteSelf", "DeleteNone"]


class DeletionCondition(Part):
    jobDeploymentStatus: Literal["Failed"] | None = None
    jobStatus: Literal["SUCCEEDED", "FAILED"] | None = None
    ttlSeconds: int | None = None


class DeletionRule(Part):
    policy: DeletionPolicy
    condition: DeletionCondition


class Deletion(Part):
    policy: DeletionPolicy


class DeletionStrategy(Part):
    deletionRules: list[DeletionRule] | None = None
    onFailure: Deletion | None = None
    onSuccess: Deletion | None = None


class SubmitterConfig(Part):
    backoffLimit: int | None = None


class RayJobSpec(Part):
    activeDeadlineSeconds: int | None = None
    backoffLimit: int | None = None
    clusterSelector: dict[str, str] | None = None
    deletionStrategy: DeletionStrategy | None = None
    entrypoint: str | None = None
    entrypointNumCpus: float | None = None
    entrypointNumGpus: float | None = None
    entrypointResources: str | None = None
    jobId: str | None = None
    managedBy: Literal["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"] | None = None
    metadata: dict[str, str] | None = None
    preRunningDeadlineSeconds: int | None = None
    rayClusterSpec: RayClusterSpec | None = None
    runtimeEnvYAML: str | None = None
    shutdownAfterJobFinishes: bool | None = None
    # No enum in the CRD either.
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"] | None = (
        None
    )
    submitterConfig: SubmitterConfig | None = None
    submitterPodTemplate: k8s.V1PodTemplateSpec | None = None
    suspend: bool | None = None
    ttlSecondsAfterFinished: int | None = None


class RayCronJobSpec(Part):
    schedule: str
    jobTemplate: RayJobSpec
    suspend: bool | None = None
    timeZone: str | None = None


class CustomObject(Part):
    """What every custom resource has; `status` is the operator's."""

    apiVersion: Literal["ray.io/v1"]
    kind: str
    metadata: k8s.V1ObjectMeta
    status: dict[str, Any] | None = None


class RayCluster(CustomObject):
    spec: RayClusterSpec


class RayService(CustomObject):
    spec: RayServiceSpec


class RayJob(CustomObject):
    spec: RayJobSpec


class RayCronJob(CustomObject):
    spec: RayCronJobSpec


MODELS: dict[str, type[CustomObject]] = {
    model.__name__: model for model in (RayCluster, RayService, RayJob, RayCronJob)
}
