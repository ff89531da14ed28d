"""A client of KubeRay's kinds: apply, read, change, watch and wait; how HTTP is spoken is in `api`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from kuberay.api import Api, Expired, open_api
from raysys.errors import Conflict, InvalidInput, NotFound, Unavailable

FIELD_MANAGER = "raysys"
GROUP_VERSION = "ray.io/v1"
WATCH_SECONDS = 60  # the server ends a watch then, and it is taken up again
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
ATTEMPTS = 5

Document = dict[str, Any]


class TimedOut(Unavailable):
    """The object did not become what was waited for; `status` holds what it said last."""

    @property
    def status_seen(self) -> Document:
        """The status that was seen last."""
        return dict(self.fields.get("status_seen") or {})


class Event(NamedTuple):
    """A change: `ADDED`, `MODIFIED` or `DELETED`, and the object after it (before it, when it is deleted)."""

    type: str
    object: Document


class Resource:
    """The objects of one kind, in one namespace or, for kinds that have none, in the cluster."""

    def __init__(self, api: Api, group_version: str, plural: str, namespace: str | None) -> None:
        self._api = api
        self.plural = plural
        root = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
        place = f"/namespaces/{namespace}" if namespace else ""
        self.path = f"{root}{place}/{plural}"

    # -- verbs -------------------------------------------------------------------------------------

    def get(self, name: str) -> Document:
        """Return the object called `name`; raises NotFound."""
        return self._api.ask("GET", f"{self.path}/{name}")

    def find(self, name: str) -> Document | None:
        """Return the object called `name`, or None."""
        try:
            return self.get(name)
        except NotFound:
            return None

    def status(self, name: str) -> Document:
        """Return what the operator says of an object; empty when it has said nothing yet."""
        return dict(self.get(name).get("status") or {})

    def list(self, selector: str = "") -> list[Document]:
        """Return the objects whose labels match `selector`."""
        return list(self._page(selector)["items"])

    def apply(self, document: Document, *, dry_run: bool = False, force: bool = True) -> Document:
        """Make the object as `document` says, by server-side apply, and return it.

        Unknown fields are refused. Raises InvalidInput with paths, and Conflict when another manager owns a field and
        `force` is off.
        """
        query = {
            "fieldManager": FIELD_MANAGER,
            "fieldValidation": "Strict",
            "force": "true" if force else "false",
            "dryRun": "All" if dry_run else "",
        }
        path = f"{self.path}/{document['metadata']['name']}"
        kind = "application/apply-patch+yaml"
        return self._api.ask("PATCH", path, query=query, body=document, content_type=kind)

    def create(self, document: Document) -> Document:
        """Make a new object; raises Conflict when there is one of its name."""
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return self._api.ask("POST", self.path, query=query, body=document)

    def delete(self, name: str, *, timeout_seconds: float | None = None) -> bool:
        """Delete the object and then what it owns; return whether there was one.

        With `timeout_seconds`, wait until it is gone.
        """
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}
        try:
            self._api.ask("DELETE", f"{self.path}/{name}", body=body)
        except NotFound:
            return False
        if timeout_seconds is not None:
            self.wait_gone(name, timeout_seconds=timeout_seconds)
        return True

    def change(self, name: str, operations: Sequence[Document]) -> Document:
        """Change an object by JSON patch; raises InvalidInput when an operation does not fit it."""
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        kind = "application/json-patch+json"
        path = f"{self.path}/{name}"
        return self._api.ask("PATCH", path, query=query, body=operations, content_type=kind)

    def _page(self, selector: str = "", name: str = "") -> Document:
        fields = f"metadata.name={name}" if name else ""
        query = {"labelSelector": selector, "fieldSelector": fields}
        return self._api.ask("GET", self.path, query=query)

    # -- changes as they come ----------------------------------------------------------------------

    def watch(
        self, *, name: str = "", selector: str = "", timeout_seconds: float
    ) -> Iterator[Event]:
        """Yield every object as it is, then every change, until the time is over.

        A watch that ends or is cut is taken up where it was; one that has become too old begins anew, and yields every
        object again. Raises Unavailable when the server is away for longer than the time that is left.
        """
        deadline = time.monotonic() + timeout_seconds
        version, pause = "", _Pause(deadline)
        while time.monotonic() < deadline:
            try:
                if not version:
                    page = self._page(selector, name)
                    version = page["metadata"]["resourceVersion"]
                    yield from (Event("ADDED", item) for item in page["items"])
                for event in self._changes(version, name, selector, deadline):
                    version = event.object["metadata"]["resourceVersion"]
                    pause.reset()
                    if event.type != "BOOKMARK":
                        yield event
            except Expired:
                version = ""
            except Unavailable:
                if not pause.wait():
                    raise

    def _changes(self, version: str, name: str, selector: str, deadline: float) -> Iterator[Event]:
        import json

        left = max(1, min(WATCH_SECONDS, round(deadline - time.monotonic())))
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": left,
            "labelSelector": selector,
            "fieldSelector": f"metadata.name={name}" if name else "",
        }
        with self._api.lines(self.path, query=query, timeout_seconds=left + 1) as lines:
            for line in filter(None, lines):
                try:
                    said = json.loads(line)
                except ValueError:  # the connection was cut in the middle of a line
                    return
                if said["type"] == "ERROR":
                    raise _watch_error(said["object"])
                yield Event(said["type"], said["object"])
                if time.monotonic() > deadline:
                    return

    # -- waiting -----------------------------------------------------------------------------------

    def wait(
        self,
        name: str,
        done: Callable[[Document], bool],
        *,
        timeout_seconds: float,
        notify: Callable[[str], None] = lambda _message: None,
    ) -> Document:
        """Wait until `done` holds of the object, and return it; an object that is not there yet is waited for.

        Raises TimedOut with the last status, and NotFound when it is deleted meanwhile.
        """
        last: Document = {}
        deadline = time.monotonic() + timeout_seconds
        while (left := deadline - time.monotonic()) > 0:
            for event in self.watch(name=name, timeout_seconds=left):
                last = event.object
                if event.type == "DELETED":
                    raise NotFound(f"{self.plural} {name} was deleted while it was waited for.")
                if done(last):
                    return last
                notify(describe(last))
        raise self._timed_out(name, "become what was waited for", timeout_seconds, last)

    def wait_gone(self, name: str, *, timeout_seconds: float) -> None:
        """Wait until there is no object called `name`; raises TimedOut with the last status."""
        deadline = time.monotonic() + timeout_seconds
        pause = _Pause(deadline)
        while (last := self.find(name)) is not None:
            if not pause.wait():
                raise self._timed_out(name, "go", timeout_seconds, last)

    def _timed_out(self, name: str, wanted: str, seconds: float, last: Document) -> TimedOut:
        return TimedOut(
            f"{self.plural} {name} did not {wanted} in {seconds:g} s; last seen: {describe(last)}.",
            name=name,
            status_seen=last.get("status"),
        )


def _watch_error(status: Mapping[str, Any]) -> Exception:
    said = f"The watch ended: {status.get('message', 'no reason given')}"
    return (Expired if status.get("code") == 410 else Unavailable)(said, code=status.get("code"))


class _Pause:
    """Pauses that grow, and never reach over the deadline."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._never = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Begin again with the shortest pause."""
        self._seconds = FIRST_PAUSE_SECONDS

    def wait(self) -> bool:
        """Pause, unless the deadline is nearer than that; return whether it did."""
        if time.monotonic() + self._seconds >= self._deadline:
            return False
        self._never.wait(self._seconds)
        self._seconds = min(2 * self._seconds, LONGEST_PAUSE_SECONDS)
        return True


# -- what a status means -------------------------------------------------------------------------


def settled(document: Document) -> bool:
    """Return whether the operator has seen the latest change of the object."""
    generation = document["metadata"].get("generation", 0)
    return int((document.get("status") or {}).get("observedGeneration", 0)) >= int(generation)


def condition(document: Document, kind: str) -> str:
    """Return `True`, `False` or `Unknown`, as the condition says; an absent one is Unknown."""
    for found in (document.get("status") or {}).get("conditions") or ():
        if found.get("type") == kind:
            return str(found.get("status"))
    return "Unknown"


def describe(document: Document) -> str:
    """Return what an object says of itself in one line."""
    status = document.get("status") or {}
    parts = [
        str(status[field])
        for field in ("jobDeploymentStatus", "jobStatus", "serviceStatus", "state", "message")
        if status.get(field)
    ]
    parts += [
        f"{c['type']}={c['status']}" + (f" ({c['reason']})" if c.get("reason") else "")
        for c in status.get("conditions") or ()
    ]
    if document and "generation" in document["metadata"] and not settled(document):
        parts.append("the operator has not seen the latest change")
    return ", ".join(parts) or "no status"


# -- the kinds -----------------------------------------------------------------------------------


class Suspendable(Resource):
    """A kind that can be put to sleep."""

    def suspend(self, name: str) -> Document:
        """Let the operator remove the Pods and keep the object."""
        return self._set_suspend(name, True)

    def resume(self, name: str) -> Document:
        """Undo `suspend`."""
        return self._set_suspend(name, False)

    def _set_suspend(self, name: str, value: bool) -> Document:
        return self.change(name, [{"op": "add", "path": "/spec/suspend", "value": value}])


class RayClusters(Suspendable):
    """RayCluster objects."""

    cluster_at = "/spec"

    def scale(self, name: str, group: str, replicas: int) -> Document:
        """Set how many Pods of a worker group are wanted, within its limits; raises NotFound without that group.

        Another change at the same time is no reason to fail, nor to be overwritten.
        """
        for _ in range(ATTEMPTS):
            index, found = _group(self.get(name), self.cluster_at, group)
            least, most = found.get("minReplicas", 0), found.get("maxReplicas", 2**31 - 1)
            if not least <= replicas <= most:
                reason = f"must lie between {least} and {most}"
                issues = [{"loc": [name, group, "replicas"], "reason": reason}]
                raise InvalidInput(f"{replicas} replicas of {group}: {reason}.", issues=issues)
            at = f"{self.cluster_at}/workerGroupSpecs/{index}"
            test = {"op": "test", "path": f"{at}/groupName", "value": group}
            set_it = {"op": "add", "path": f"{at}/replicas", "value": replicas}
            try:
                return self.change(name, [test, set_it])
            except InvalidInput:  # the groups have been ordered anew between reading and writing
                continue
        raise Conflict(f"{self.plural} {name} changes all the time; {group} was not scaled.")

    def ready(self, document: Document) -> bool:
        """Return whether the head is ready and all Pods that were wanted have been there."""
        conditions = ("RayClusterProvisioned", "HeadPodReady")
        return settled(document) and all(condition(document, c) == "True" for c in conditions)

    def wait_ready(self, name: str, *, timeout_seconds: float) -> Document:
        """Wait until the cluster is ready; raises TimedOut with its last status."""
        return self.wait(name, self.ready, timeout_seconds=timeout_seconds)


def _group(document: Document, cluster_at: str, group: str) -> tuple[int, Document]:
    cluster = document
    for key in cluster_at.strip("/").split("/"):
        cluster = cluster[key]
    for index, found in enumerate(cluster.get("workerGroupSpecs") or ()):
        if found["groupName"] == group:
            return index, found
    known = ", ".join(g["groupName"] for g in cluster.get("workerGroupSpecs") or ()) or "none"
    raise NotFound(f"There is no worker group {group!r}; there are: {known}.")


class RayServices(RayClusters):
    """RayService objects."""

    cluster_at = "/spec/rayClusterConfig"

    def set_serve_config(self, name: str, config: Mapping[str, Any]) -> Document:
        """Give the service another Serve config; raises InvalidInput when Serve would not know a key of it."""
        import yaml

        from kuberay import checks

        issues = [{"loc": list(f.loc), "reason": f.reason} for f in checks.serve_faults(config)]
        if issues:
            raise InvalidInput("The Serve config is not valid.", issues=issues)
        text = yaml.safe_dump(dict(config), sort_keys=False)
        operation = {"op": "add", "path": "/spec/serveConfigV2", "value": text}
        return self.change(name, [operation])

    def ready(self, document: Document) -> bool:
        """Return whether the latest spec serves, and no upgrade is under way."""
        return (
            settled(document)
            and condition(document, "Ready") == "True"
            and condition(document, "UpgradeInProgress") != "True"
        )

    def active_cluster(self, name: str) -> str:
        """Return the name of the RayCluster that serves now; raises Unavailable while none does."""
        cluster = (self.status(name).get("activeServiceStatus") or {}).get("rayClusterName")
        if not cluster:
            raise Unavailable(
                f"RayService {name} has no active cluster yet: see `raysys kube status`."
            )
        return str(cluster)


class RayJobs(Suspendable):
    """RayJob objects."""

    ENDED = ("Complete", "Failed", "ValidationFailed")

    def ended(self, document: Document) -> bool:
        """Return whether the job will not go on, for whatever reason."""
        return (document.get("status") or {}).get("jobDeploymentStatus") in self.ENDED

    def succeeded(self, document: Document) -> bool:
        """Return whether the job has done what it was for."""
        return (document.get("status") or {}).get("jobStatus") == "SUCCEEDED"

    def wait_ended(
        self,
        name: str,
        *,
        timeout_seconds: float,
        notify: Callable[[str], None] = lambda _message: None,
    ) -> Document:
        """Wait until the job has ended, well or not; raises TimedOut with its last status."""
        return self.wait(name, self.ended, timeout_seconds=timeout_seconds, notify=notify)


class RayCronJobs(Suspendable):
    """RayCronJob objects."""


class KubeRay:
    """The door to one namespace: KubeRay's kinds by name, every other kind by `of`.

    Use it as a context manager: its connections are closed at the end.
    """

    def __init__(self, api: Api, namespace: str = "raysys") -> None:
        self.api = api
        self.namespace = namespace
        self.clusters = RayClusters(api, GROUP_VERSION, "rayclusters", namespace)
        self.services = RayServices(api, GROUP_VERSION, "rayservices", namespace)
        self.jobs = RayJobs(api, GROUP_VERSION, "rayjobs", namespace)
        self.cron_jobs = RayCronJobs(api, GROUP_VERSION, "raycronjobs", namespace)
        self._known: dict[str, dict[str, Document]] = {}

    @classmethod
    def open(cls, context: str = "", namespace: str = "raysys") -> Self:
        """Open the cluster of this Pod, or that of the kubeconfig's context."""
        return cls(open_api(context), namespace)

    def __enter__(self) -> Self:
        self.api.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.api.__exit__(kind, error, trace)

    def of(self, document: Document) -> Resource:
        """Return the resource that a document belongs to, as the API server names it.

        Raises NotFound when the server does not know the kind.
        """
        version, kind = document["apiVersion"], document["kind"]
        if version == GROUP_VERSION and kind == "RayService":
            return self.services
        found = self._kinds(version).get(kind)
        if found is None:
            raise NotFound(
                f"The cluster does not know {kind} of {version}. Is the operator that brings it installed?"
            )
        own = document["metadata"].get("namespace", self.namespace)
        return Resource(self.api, version, found["name"], own if found["namespaced"] else None)

    def _kinds(self, version: str) -> dict[str, Document]:
        if version not in self._known:
            root = "/apis" if "/" in version else "/api"
            try:
                answer = self.api.ask("GET", f"{root}/{version}")
            except NotFound:
                answer = {}
            self._known[version] = {
                r["kind"]: r for r in answer.get("resources", ()) if "/" not in r["name"]
            }
        return self._known[version]

    def logs(
        self, pod: str, container: str, *, tail: int, follow: bool, timeout_seconds: float
    ) -> Iterator[str]:
        """Yield the lines of a container's log, with `follow` those to come too."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        query = {"container": container, "tailLines": tail, "follow": "true" if follow else ""}
        with self.api.lines(path, query=query, timeout_seconds=timeout_seconds) as lines:
            yield from lines

    def pods(self, selector: str) -> list[Document]:
        """Return the Pods whose labels match."""
        return Resource(self.api, "v1", "pods", self.namespace).list(selector)
