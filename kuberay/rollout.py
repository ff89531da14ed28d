"""Many objects at once: apply an overlay, show what would change, go back when the result is not healthy, remove."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kuberay import manifests
from kuberay.client import FIELD_MANAGER, Document, KubeRay
from raysys.errors import NotFound, RaysysError, Unavailable

Notify = Callable[[str], None]

SERVICE = "RayService"
# The operator's, the server's, and what every apply changes.
SERVERS_OWN = (
    "managedFields",
    "resourceVersion",
    "uid",
    "generation",
    "creationTimestamp",
    "selfLink",
)
# An object goes before what it holds or what it needs is gone; a namespace may hold what is not ours, and stays.
KEPT = ("Namespace", "PersistentVolumeClaim")


def title(document: Document) -> str:
    """Return the name of a document for people."""
    return f"{document['kind']}/{document['metadata']['name']}"


def bare(document: Document) -> Document:
    """Return a live object as it may be applied: without what the server and the operator wrote."""
    metadata = {k: v for k, v in document["metadata"].items() if k not in SERVERS_OWN}
    return {k: v for k, v in {**document, "metadata": metadata}.items() if k != "status"}


def apply(
    kube: KubeRay, documents: Iterable[Document], *, dry_run: bool = False, notify: Notify
) -> None:
    """Apply every document in order; the first one that is refused ends it."""
    for document in documents:
        kube.of(document).apply(document, dry_run=dry_run)
        notify(f"{title(document)} {'would be applied' if dry_run else 'applied'}")


def diff(kube: KubeRay, documents: Iterable[Document]) -> str:
    """Return what applying would change, as a unified diff of YAML; empty when nothing would.

    The server computes it, so that defaults and other managers' fields are no differences.
    """
    return "".join(_difference(kube, document) for document in documents)


def _difference(kube: KubeRay, document: Document) -> str:
    resource = kube.of(document)
    try:
        live = resource.find(document["metadata"]["name"])
        after = resource.apply(document, dry_run=True)
    except NotFound:  # its namespace is not there yet
        live, after = None, document
    before_text = manifests.dump([bare(live)]) if live else ""
    lines = difflib.unified_diff(
        before_text.splitlines(keepends=True),
        manifests.dump([bare(after)]).splitlines(keepends=True),
        f"live/{title(document)}",
        f"applied/{title(document)}",
    )
    return "".join(lines)


def apply_healthy(
    kube: KubeRay,
    documents: Sequence[Document],
    *,
    timeout_seconds: float,
    roll_back: bool,
    notify: Notify,
) -> None:
    """Apply, and wait until every RayService serves; when one does not, apply what was there before, if asked to.

    Raises Unavailable with the last status in either case.
    """
    before = _live(kube, documents) if roll_back else []
    try:
        apply(kube, documents, notify=notify)
        _wait(kube, documents, timeout_seconds, notify)
    except RaysysError as error:
        if not roll_back:
            raise
        if not before:
            raise Unavailable(f"{error.message} There was nothing to go back to.") from error
        notify(f"not healthy, going back: {error.message}")
        apply(kube, before, notify=notify)
        _wait(kube, before, timeout_seconds, notify)
        raise Unavailable(f"Rolled back to what ran before: {error.message}") from error


def _live(kube: KubeRay, documents: Iterable[Document]) -> list[Document]:
    found = (kube.of(d).find(d["metadata"]["name"]) for d in documents if d["kind"] not in KEPT)
    return [bare(document) for document in found if document is not None]


def _wait(
    kube: KubeRay, documents: Iterable[Document], timeout_seconds: float, notify: Notify
) -> None:
    for document in documents:
        if document["kind"] == SERVICE:
            name = document["metadata"]["name"]
            kube.services.wait(
                name, kube.services.ready, timeout_seconds=timeout_seconds, notify=notify
            )
            notify(f"{title(document)} is ready")


def delete(kube: KubeRay, documents: Sequence[Document], *, volumes: bool, notify: Notify) -> None:
    """Delete what the documents name, last first; the namespace stays, and volumes do unless `volumes`."""
    for document in reversed(documents):
        if document["kind"] == "Namespace" or (document["kind"] in KEPT and not volumes):
            continue
        if kube.of(document).delete(document["metadata"]["name"]):
            notify(f"{title(document)} deleted")


# -- jobs ----------------------------------------------------------------------------------------


def image_of(service: Document) -> str:
    """Return the image that a RayService's head runs."""
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    return str(head["containers"][0]["image"])


def job(name: str, cluster: str, command: Sequence[str], image: str) -> dict[str, Any]:
    """Return a RayJob that runs `command` inside the running cluster, by a submitter of the same image."""
    import shlex

    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    size = {"cpu": "200m", "memory": "512Mi"}
    container = {
        "name": "ray-job-submitter",
        "image": image,
        "resources": {"requests": size, "limits": size},
        "securityContext": security,
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 100,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": FIELD_MANAGER}},
        "spec": {
            "entrypoint": shlex.join(command),
            "clusterSelector": {"ray.io/cluster": cluster},
            "submitterPodTemplate": {
                "metadata": {"labels": {"raysys.io/submits": "true"}},
                "spec": pod,
            },
        },
    }
