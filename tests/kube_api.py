"""A stand-in for a Kubernetes API server: a real HTTP server on loopback that speaks the part that the client uses.

Server-side apply with field owners and conflicts, JSON patches, resource versions, watches with bookmarks and 410,
strict field validation, the bodies of refusals, and on demand slow, cut and failing answers.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

Document = dict[str, Any]
Path = tuple[str, ...]

TOKEN = "good-token"
READER_TOKEN = "may-only-read"
KINDS: dict[str, dict[str, tuple[str, bool]]] = {
    "v1": {
        "Namespace": ("namespaces", False),
        "ConfigMap": ("configmaps", True),
        "Secret": ("secrets", True),
        "Service": ("services", True),
        "ServiceAccount": ("serviceaccounts", True),
        "PersistentVolumeClaim": ("persistentvolumeclaims", True),
        "Pod": ("pods", True),
    },
    "apps/v1": {"Deployment": ("deployments", True), "StatefulSet": ("statefulsets", True)},
    "networking.k8s.io/v1": {"NetworkPolicy": ("networkpolicies", True)},
    "ray.io/v1": {
        "RayCluster": ("rayclusters", True),
        "RayService": ("rayservices", True),
        "RayJob": ("rayjobs", True),
        "RayCronJob": ("raycronjobs", True),
    },
}
TYPED = {"NetworkPolicy": {"podSelector", "policyTypes", "ingress", "egress"}}
FIELDS = {  # of a spec, for strict validation; others are not looked into
    "RayCluster": {"rayVersion", "suspend", "workerGroupSpecs", "headGroupSpec", "authOptions"},
    "RayService": {"rayClusterConfig", "serveConfigV2", "suspend", "upgradeStrategy"}
    | {"rayClusterDeletionDelaySeconds", "excludeHeadPodFromServeSvc"},
    "RayJob": {"entrypoint", "clusterSelector", "submitterPodTemplate", "suspend"},
}


class Refused(Exception):
    """An answer that is not 200."""

    def __init__(
        self, code: int, reason: str, message: str, causes: list[dict[str, str]] | None = None
    ) -> None:
        super().__init__(message)
        details = {"causes": causes} if causes else {}
        self.code = code
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details,
            "code": code,
        }


class Fault(NamedTuple):
    """What the next request meets: a status, a wait, or a connection that ends in the middle of the answer."""

    code: int = 0
    wait_seconds: float = 0.0
    cut: bool = False


class Change(NamedTuple):
    """An event of a watch."""

    version: int
    type: str
    plural: str
    object: Document


@dataclass
class Store:
    """All objects, who owns their fields, and what has happened."""

    objects: dict[Path, Document] = field(default_factory=dict)
    owners: dict[Path, dict[Path, str]] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    version: int = 100
    oldest: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def put(self, key: Path, document: Document, kind: str) -> Document:
        """Store an object under a new version, and tell the watches."""
        with self.changed:
            self.version += 1
            document["metadata"]["resourceVersion"] = str(self.version)
            if kind == "DELETED":
                del self.objects[key]
                self.owners.pop(key, None)
            else:
                self.objects[key] = document
            self.changes.append(Change(self.version, kind, key[1], copy.deepcopy(document)))
            self.changed.notify_all()
        return document


class KubeApi:
    """The server; tests play the operator by `set_status`, and the bad network by `faults`."""

    def __init__(self) -> None:
        self.store = Store()
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.logs: dict[str, list[str]] = {}
        self.generation = 0  # of watches: raising it ends all that run
        self._closing = threading.Event()
        server = self

        class Bound(_Handler):
            api = server

        self._http = _Server(("127.0.0.1", 0), Bound)
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.02,), name="kube-api"
        )
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self.cut_watches()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def closing(self) -> bool:
        """Whether the server is about to end."""
        return self._closing.is_set()

    # -- for tests ---------------------------------------------------------------------------------

    def set_status(self, kind: str, name: str, namespace: str = "raysys", **status: Any) -> None:
        """Write a status as the operator would; `observed=False` leaves the generation that it saw."""
        observed = status.pop("observed", True)
        version = next(v for v, kinds in KINDS.items() if kind in kinds)
        key = (version, KINDS[version][kind][0], namespace, name)
        document = copy.deepcopy(self.store.objects[key])
        if observed:
            status["observedGeneration"] = document["metadata"]["generation"]
        document["status"] = {**document.get("status", {}), **status}
        self.store.put(key, document, "MODIFIED")

    def forget(self) -> None:
        """Know no version before this moment, as etcd after a compaction."""
        self.store.oldest = self.store.version + 1
        with self.store.changed:
            self.store.version += 1

    def cut_watches(self) -> None:
        """End every connection that a watch holds, without the end of its answer."""
        with self.store.changed:
            self.generation += 1
            self.store.changed.notify_all()

    def object(self, kind: str, name: str, namespace: str = "raysys") -> Document:
        """Return a stored object."""
        version = next(v for v, kinds in KINDS.items() if kind in kinds)
        plural, namespaced = KINDS[version][kind]
        return self.store.objects[(version, plural, namespace if namespaced else "", name)]


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 32

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients go away as they like."""


class _Handler(BaseHTTPRequestHandler):
    api: KubeApi
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets: the second waited 40 ms
    timeout = 5  # an idle kept-alive connection does not keep the server from ending

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer; every method is answered in one way."""
        self._serve()

    def __getattr__(self, name: str) -> Any:
        if name in ("do_POST", "do_PATCH", "do_DELETE"):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"null")
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.api.requests.append((self.command, self.path))
        try:
            self._meet_fault()
            self._authenticate()
            if query.get("watch"):
                self._watch(url.path, query)
            elif url.path.endswith("/log"):
                self._log(url.path, query)
            else:
                self._send(
                    200, _answer(self.api.store, self.command, url.path, query, body, self.headers)
                )
        except Refused as refused:
            self._send(refused.code, refused.body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        if self.api.closing:
            self.close_connection = True

    def _meet_fault(self) -> None:
        if not self.api.faults:
            return
        fault = self.api.faults.pop(0)
        if fault.wait_seconds:
            time.sleep(fault.wait_seconds)
        if fault.code:
            raise Refused(fault.code, "ServiceUnavailable", "the server is in trouble")
        if fault.cut:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"kind": "Ra')
            self.close_connection = True
            raise BrokenPipeError

    def _authenticate(self) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in (TOKEN, READER_TOKEN):
            raise Refused(401, "Unauthorized", "Unauthorized")
        if token == READER_TOKEN and self.command != "GET":
            said = 'rayservices.ray.io "raysys" is forbidden: User "reader" cannot patch resource'
            raise Refused(403, "Forbidden", said)

    def _send(self, code: int, document: Document) -> None:
        text = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    # -- streams -----------------------------------------------------------------------------------

    def _start_chunks(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _event(self, kind: str, document: Document) -> None:
        self._chunk(json.dumps({"type": kind, "object": document}).encode() + b"\n")

    def _log(self, path: str, query: dict[str, str]) -> None:
        pod = path.split("/")[-2]
        lines = self.api.logs.get(pod)
        if lines is None:
            raise Refused(404, "NotFound", f'pods "{pod}" not found')
        self._start_chunks()
        for line in lines[-int(query.get("tailLines", "0")) :]:
            self._chunk(line.encode() + b"\n")
        self._chunk(b"")

    def _watch(self, path: str, query: dict[str, str]) -> None:
        store, generation = self.api.store, self.api.generation
        key = _key(path)
        seen = int(query["resourceVersion"])
        deadline = time.monotonic() + float(query.get("timeoutSeconds", "60"))
        self._start_chunks()
        if seen < store.oldest:
            self._event("ERROR", Refused(410, "Expired", "too old resource version").body)
            self._chunk(b"")
            return
        while time.monotonic() < deadline:
            with store.changed:
                news = [c for c in store.changes if c.version > seen and _seen_by(c, key, query)]
                if not news:
                    store.changed.wait(min(0.2, max(0.0, deadline - time.monotonic())))
            if self.api.generation != generation:
                self.close_connection = True  # without the last chunk: the connection was cut
                return
            for change in news:
                self._event(change.type, change.object)
                seen = change.version
            if not news:
                seen = store.version if not _pending(store, seen, key, query) else seen
                self._event("BOOKMARK", {"metadata": {"resourceVersion": str(seen)}})
        self._chunk(b"")


def _pending(store: Store, seen: int, key: Path, query: dict[str, str]) -> bool:
    return any(c.version > seen and _seen_by(c, key, query) for c in store.changes)


def _seen_by(change: Change, key: Path, query: dict[str, str]) -> bool:
    return change.plural == key[1] and _selected(change.object, query)


def _selected(document: Document, query: dict[str, str]) -> bool:
    name = query.get("fieldSelector", "").removeprefix("metadata.name=")
    if name and document["metadata"]["name"] != name:
        return False
    labels = document["metadata"].get("labels", {})
    for wanted in filter(None, query.get("labelSelector", "").split(",")):
        label, sign, value = wanted.partition("=")
        if label not in labels or (sign and labels[label] != value):
            return False
    return True


# -- what a request does -------------------------------------------------------------------------


def _key(path: str) -> Path:
    """Return group and version, plural, namespace and name; the last two may be empty."""
    parts = path.strip("/").split("/")
    version, rest = ("v1", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    return (version, rest[0] if rest else "", namespace, rest[1] if len(rest) > 1 else "")


def _answer(
    store: Store, method: str, path: str, query: dict[str, str], body: Any, headers: Any
) -> Document:
    key = _key(path)
    if not key[1]:
        return _discovery(key[0])
    if not any(key[1] == plural for plural, _ in KINDS.get(key[0], {}).values()):
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    if method == "POST":
        return _create(store, (*key[:3], body["metadata"]["name"]), body)
    if method == "PATCH" and "apply-patch" in headers["Content-Type"]:
        return _apply(store, key, query, body)
    if method == "GET" and not key[3]:
        items = [
            d for k, d in sorted(store.objects.items()) if k[:3] == key[:3] and _selected(d, query)
        ]
        return {"items": items, "metadata": {"resourceVersion": str(store.version)}}
    if key not in store.objects:
        raise Refused(404, "NotFound", f'{key[1]}.{key[0].partition("/")[0]} "{key[3]}" not found')
    if method == "GET":
        return store.objects[key]
    if method == "PATCH":
        return _json_patch(store, key, body)
    return _delete(store, key)


def _discovery(version: str) -> Document:
    if version not in KINDS:
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    resources = [
        {"name": plural, "kind": kind, "namespaced": namespaced}
        for kind, (plural, namespaced) in KINDS[version].items()
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}


def _create(store: Store, key: Path, body: Document) -> Document:
    if key in store.objects:
        raise Refused(409, "AlreadyExists", f'{key[1]} "{key[3]}" already exists')
    _validate(body)
    return store.put(key, _born(body), "ADDED")


def _born(document: Document) -> Document:
    document = copy.deepcopy(document)
    document["metadata"] |= {
        "generation": 1,
        "uid": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return document


def _delete(store: Store, key: Path) -> Document:
    store.put(key, copy.deepcopy(store.objects[key]), "DELETED")
    return {"kind": "Status", "status": "Success"}


def _validate(document: Document) -> None:
    kind, spec = document["kind"], document.get("spec", {})
    unknown = sorted(spec.keys() - FIELDS.get(kind, spec.keys()))
    odd = sorted(spec.keys() - TYPED.get(kind, spec.keys()))
    if odd:
        said = f"failed to create typed patch object: .spec.{odd[0]}: field not declared in schema"
        raise Refused(500, "InternalError", said)
    if unknown:
        said = ", ".join(f'unknown field "spec.{name}"' for name in unknown)
        raise Refused(400, "BadRequest", f"strict decoding error: {said}")
    delay = spec.get("rayClusterDeletionDelaySeconds", 0)
    if delay < 0:
        cause = {
            "reason": "FieldValueInvalid",
            "message": f"Invalid value: {delay}: must be at least 0",
            "field": "spec.rayClusterDeletionDelaySeconds",
        }
        name = document["metadata"]["name"]
        raise Refused(422, "Invalid", f'{kind}.ray.io "{name}" is invalid', [cause])


def _apply(store: Store, key: Path, query: dict[str, str], body: Document) -> Document:
    _validate(body)
    if key[2] and ("v1", "namespaces", "", key[2]) not in store.objects:
        raise Refused(404, "NotFound", f'namespaces "{key[2]}" not found')
    manager = query["fieldManager"]
    live = store.objects.get(key)
    owners = dict(store.owners.get(key, {}))
    _refuse_stale(live, body)
    leaves = dict(_leaves({k: v for k, v in body.items() if k not in ("apiVersion", "kind")}))
    if live is not None and query.get("force") != "true":
        _refuse_conflicts(live, owners, leaves, manager)
    after = (
        copy.deepcopy(live)
        if live is not None
        else _born({**body, "metadata": dict(body["metadata"])})
    )
    for path in [p for p, owner in owners.items() if owner == manager and p not in leaves]:
        _remove(after, path)
        del owners[path]
    for path, value in leaves.items():
        _set(after, path, value)
        owners[path] = manager
    if query.get("dryRun"):
        return after
    store.owners[key] = owners
    return _stored(store, key, live, after)


def _refuse_stale(live: Document | None, body: Document) -> None:
    wanted = body["metadata"].get("resourceVersion")
    if live is not None and wanted and wanted != live["metadata"]["resourceVersion"]:
        said = "the object has been modified; please apply your changes to the latest version"
        raise Refused(409, "Conflict", said)


def _refuse_conflicts(
    live: Document, owners: dict[Path, str], leaves: dict[Path, Any], manager: str
) -> None:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{owners[path]}"',
            "field": "." + ".".join(path),
        }
        for path, value in leaves.items()
        if owners.get(path, manager) != manager and _get(live, path) != value
    ]
    if causes:
        said = f"Apply failed with {len(causes)} conflict: {causes[0]['message']}: {causes[0]['field']}"
        raise Refused(409, "Conflict", said, causes)


def _stored(store: Store, key: Path, live: Document | None, after: Document) -> Document:
    if live is None:
        return store.put(key, after, "ADDED")
    if after == live:
        return live
    if after.get("spec") != live.get("spec"):
        after["metadata"]["generation"] = live["metadata"]["generation"] + 1
    return store.put(key, after, "MODIFIED")


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    else:
        yield path, value


def _get(document: Any, path: Path) -> Any:
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _set(document: Document, path: Path, value: Any) -> None:
    for name in path[:-1]:
        document = document.setdefault(name, {})
    document[path[-1]] = value


def _remove(document: Document, path: Path) -> None:
    for name in path[:-1]:
        document = document.get(name, {})
    document.pop(path[-1], None)


def _json_patch(store: Store, key: Path, operations: list[Document]) -> Document:
    live = store.objects[key]
    after = copy.deepcopy(live)
    for operation in operations:
        *parents, last = operation["path"].strip("/").split("/")
        place: Any = after
        try:
            for name in parents:
                place = place[int(name)] if isinstance(place, list) else place[name]
            if operation["op"] == "test" and place.get(last) != operation["value"]:
                raise KeyError(last)
        except (KeyError, IndexError):
            said = "the server rejected our request due to an error in our request"
            raise Refused(422, "Invalid", said) from None
        if operation["op"] == "add":
            place[last] = operation["value"]
    _validate(after)
    return _stored(store, key, live, after)
