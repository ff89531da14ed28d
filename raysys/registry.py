"""The door to MLflow's model registry, by REST: versions, aliases, model bytes; no runs.

MLflow's own library costs seconds and 200 MB to import; the CLI, the gateway and the watcher need
none of it.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx

from raysys.artifacts import Artifacts
from raysys.errors import Conflict, ModelRefused, NotFound, RaysysError, Unavailable
from raysys.records import PATH_TAG, SHA256_TAG, ModelVersion

API = "/api/2.0/mlflow"
PAGE = 1000  # the most registered models that one request may ask for
TIMEOUT = httpx.Timeout(10.0, connect=3.0)

ROLLOUT_TAG = "raysys.rollout"  # of a family: how its challenger is tried

HOOK = "raysys"
HOOK_EVENTS = [
    {"entity": "MODEL_VERSION_ALIAS", "action": action} for action in ("CREATED", "DELETED")
]


class Registered(NamedTuple):
    """What the registry says of a family as a whole."""

    aliases: dict[str, str]
    tags: dict[str, str]


class Registry:
    """The registered models of one MLflow server. Several threads may use it; close it after use.

    Every method raises Unavailable when the server does not answer, and NotFound for a family,
    version or alias that does not exist.
    """

    def __init__(self, tracking_uri: str, transport: httpx.BaseTransport | None = None) -> None:
        self.tracking_uri = tracking_uri.rstrip("/")
        self._http = httpx.Client(base_url=self.tracking_uri, timeout=TIMEOUT, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the server."""
        self._http.close()

    def healthy(self) -> bool:
        """Tell whether the server answers."""
        try:
            return self._send("GET", "/health").is_success
        except Unavailable:
            return False

    def aliases(self) -> dict[str, dict[str, str]]:
        """Return the version behind every alias of every family, in one request."""
        return {name: found.aliases for name, found in self.families().items()}

    def families(self) -> dict[str, Registered]:
        """Return the aliases and tags of every family, in one request."""
        found: dict[str, Registered] = {}
        for model in self._pages(
            "/registered-models/search", "registered_models", max_results=PAGE
        ):
            found[model["name"]] = Registered(
                {a["alias"]: str(a["version"]) for a in model.get("aliases", [])},
                {tag["key"]: tag["value"] for tag in model.get("tags", [])},
            )
        return found

    def versions(self, family: str) -> list[ModelVersion]:
        """Return all versions of a family, newest first; none for a family never registered."""
        rows = self._pages(
            "/model-versions/search", "model_versions", filter=f"name='{_quoted(family)}'"
        )
        # A search gives no aliases with the versions; the models have them.
        named: dict[str, list[str]] = {}
        for alias, version in self.aliases().get(family, {}).items() if rows else ():
            named.setdefault(version, []).append(alias)
        found = [
            _model_version({**row, "aliases": named.get(str(row["version"]), [])}) for row in rows
        ]
        return sorted(found, key=lambda v: int(v.version), reverse=True)

    def version(self, family: str, version: str) -> ModelVersion:
        """Return one version of a family."""
        if not version.isdecimal():
            raise NotFound(
                f"{family} has no version {version!r}: versions are numbers.", family=family
            )
        body = self._json("GET", "/model-versions/get", params={"name": family, "version": version})
        return _model_version(body["model_version"])

    def by_alias(self, family: str, alias: str) -> ModelVersion | None:
        """Return the version that an alias points to, or None."""
        try:
            body = self._json(
                "GET", "/registered-models/alias", params={"name": family, "alias": alias}
            )
        except NotFound:
            return None
        return _model_version(body["model_version"])

    def champion(self, family: str) -> ModelVersion | None:
        """Return the version that serves, or None."""
        return self.by_alias(family, "champion")

    def set_alias(self, family: str, alias: str, version: str) -> None:
        """Point an alias to a version; it is made when it is new, and moved when it is not."""
        self._json(
            "POST",
            "/registered-models/alias",
            json={"name": family, "alias": alias, "version": version},
        )

    def set_family_tag(self, family: str, key: str, value: str) -> None:
        """Set a tag of a family; it is made when it is new."""
        self._json(
            "POST",
            "/registered-models/set-tag",
            json={"name": family, "key": key, "value": value},
        )

    def delete_alias(self, family: str, alias: str) -> None:
        """Remove an alias; one that is not there stays away."""
        try:
            self._json("DELETE", "/registered-models/alias", json={"name": family, "alias": alias})
        except NotFound:
            return

    def tell(self, url: str) -> None:
        """Let the server post to `url` whenever an alias is moved or removed; a repetition changes nothing.

        Raises Conflict where the server will not post there: it may allow only https and public addresses.
        """
        hooks = self._pages("/webhooks", "webhooks")
        ours = next((hook for hook in hooks if hook["name"] == HOOK), None)
        if ours is not None and ours["url"] == url and ours.get("status") == "ACTIVE":
            return
        body = {"name": HOOK, "url": url, "status": "ACTIVE", "events": HOOK_EVENTS}
        if ours is None:
            self._json("POST", "/webhooks", json=body)
        else:
            self._json("PATCH", f"/webhooks/{ours['webhook_id']}", json=body)

    def delete_version(self, version: ModelVersion) -> None:
        """Remove a version and its files; one that is not there stays away."""
        self._delete_files(version)
        try:
            query = {"name": version.family, "version": version.version}
            self._json("DELETE", "/model-versions/delete", json=query)
        except NotFound:
            return

    def _delete_files(self, version: ModelVersion) -> None:
        scheme, _, path = version.model_uri.partition(":")
        if scheme != "mlflow-artifacts":
            Artifacts("/").remove(version.model_uri.removeprefix("file://"))
            return
        proxied = "/api/2.0/mlflow-artifacts/artifacts/" + httpx.URL(path).path.lstrip("/")
        answer = self._send("DELETE", proxied)
        if not answer.is_success and answer.status_code != 404:
            raise _refusal(answer)

    def fetch(self, version: ModelVersion) -> bytes:
        """Return the ONNX file of a version, verified.

        Raises ModelRefused when the file is missing, or is not the one that was registered.
        """
        name = f"{version.family} {version.version}"
        if not version.sha256 or PATH_TAG not in version.tags:
            raise ModelRefused(
                f"{name} was not registered by raysys: it lacks the tags {SHA256_TAG} and "
                f"{PATH_TAG}, without which its file cannot be verified.",
                family=version.family,
                version=version.version,
            )
        data = self._download(version)
        found = hashlib.sha256(data).hexdigest()
        if found != version.sha256:
            raise ModelRefused(
                f"The file of {name} is not the one that was registered: its SHA-256 starts with "
                f"{found[:12]}, and {version.sha256[:12]} is expected.",
                family=version.family,
                version=version.version,
            )
        return data

    def _download(self, version: ModelVersion) -> bytes:
        # The server resolves the artifact root itself: proxied, a folder of its own, or a bucket.
        path = version.tags[PATH_TAG]
        query = {"name": version.family, "version": version.version, "path": path}
        answer = self._send("GET", "/model-versions/get-artifact", params=query)
        return answer.content if answer.is_success else self._read_directly(version, path, answer)

    def _read_directly(self, version: ModelVersion, path: str, refusal: httpx.Response) -> bytes:
        # A server without the credentials or the mount of the artifact root cannot hand out the
        # file; this process may have them.
        query = {"name": version.family, "version": version.version}
        root = str(
            self._json("GET", "/model-versions/get-download-uri", params=query)["artifact_uri"]
        )
        try:
            if root.startswith("mlflow-artifacts:"):
                raise NotFound(_reason(refusal))
            return Artifacts(root.removeprefix("file://")).get(
                f"{root.removeprefix('file://').rstrip('/')}/{path}"
            )
        except NotFound as error:
            raise ModelRefused(
                f"The file {path} of {version.family} {version.version} is missing from {root}: "
                f"{error.message}",
                family=version.family,
                version=version.version,
            ) from error

    def _pages(self, path: str, key: str, **query: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        while True:
            body = self._json("GET", path, params=query)
            rows += body.get(key, [])
            if not body.get("next_page_token"):
                return rows
            query = {**query, "page_token": body["next_page_token"]}

    def _json(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        answer = self._send(method, API + path, **request)
        if answer.is_success:
            body: dict[str, Any] = answer.json()
            return body
        raise _refusal(answer)

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise Unavailable(
                f"MLflow at {self._where} does not answer ({type(error).__name__}); "
                "`raysys status` tells whether it runs.",
                mlflow=self._where,
            ) from error

    @property
    def _where(self) -> str:
        url = httpx.URL(self.tracking_uri)
        return (
            str(url.copy_with(username=None, password=None)) if url.userinfo else self.tracking_uri
        )


def _refusal(answer: httpx.Response) -> RaysysError:
    reason = _reason(answer)
    if answer.status_code == 404:
        return NotFound(reason)
    if answer.status_code >= 500:
        return Unavailable(f"MLflow answered {answer.status_code}: {reason}")
    # MLflow says 400 for what does not exist, too: an alias or version that is not there.
    if "not found" in reason.lower() or "does not exist" in reason.lower():
        return NotFound(reason)
    return Conflict(f"MLflow refused with {answer.status_code}: {reason}")


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200].strip() or f"HTTP {answer.status_code}"


def _quoted(name: str) -> str:
    if "'" in name:
        raise NotFound(f"There is no family {name!r}.", family=name)
    return name


def _model_version(row: dict[str, Any]) -> ModelVersion:
    tags = {tag["key"]: tag["value"] for tag in row.get("tags", [])}
    created = row.get("creation_timestamp")
    return ModelVersion(
        family=row["name"],
        version=str(row["version"]),
        run_id=row.get("run_id", ""),
        sha256=tags.get(SHA256_TAG, ""),
        model_uri=row.get("source", ""),
        aliases=sorted(row.get("aliases", [])),
        created_at=datetime.fromtimestamp(int(created) / 1000, UTC) if created else None,
        tags=tags,
    )
