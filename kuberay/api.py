"""HTTP to the API server through the official client: its configuration and its transport, our errors and deadlines.

What the kinds mean is not here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

from raysys.errors import Conflict, Forbidden, InvalidInput, NotFound, RaysysError, Unavailable

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

TIMEOUT_SECONDS = 30.0
CONNECT_SECONDS = 5.0
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
STRICT = re.compile(r'(?:unknown|duplicate) field "([^"]*)"|\.(\S+): field not declared in schema')


class Expired(Conflict):
    """The API server no longer knows that resource version: list again."""


class Api:
    """One API server, asked as one user; closes its connections at the end of the block."""

    def __init__(self, client: ApiClient, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The client itself only forgets its pools: they would stay open as long as an error's traceback knows them.
        pools = self._client.rest_client.pool_manager.pools
        for key in pools.keys():  # noqa: SIM118  it is no mapping that can be iterated over
            pools[key].close()
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Return the answer's document; raises the error of raysys that the status means."""
        seconds = timeout_seconds or self._timeout_seconds
        with self._answer(method, path, query, body, content_type, seconds) as answer:
            return dict(json.loads(answer.response.read() or b"{}"))

    @contextmanager
    def lines(
        self, path: str, *, query: Mapping[str, Any] | None = None, timeout_seconds: float
    ) -> Iterator[Iterator[str]]:
        """Yield the lines of an answer as they come; raises Unavailable when none comes for `timeout_seconds`."""
        with self._answer("GET", path, query, None, "", timeout_seconds) as answer:
            yield _lines(answer.response)

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Any,
        content_type: str,
        seconds: float,
    ) -> Iterator[Any]:
        import urllib3
        from kubernetes.client import ApiException

        try:
            answer = self._send(method, path, query, body, content_type, seconds)
        except (urllib3.exceptions.HTTPError, ApiException) as error:  # the latter for TLS alone
            raise self._away(method, path, error) from error
        try:
            if answer.status >= 300:
                raise _translated(answer.status, answer.response.read(), f"{method} {path}")
            yield answer
        except (urllib3.exceptions.HTTPError, json.JSONDecodeError) as error:
            raise self._away(method, path, error) from error
        finally:
            # A connection with an unread answer, such as a watch, must not go back to the pool.
            answer.response.close()
            answer.response.release_conn()

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Any,
        content_type: str,
        seconds: float,
    ) -> Any:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        _, url, headers, _, _ = self._client.param_serialize(
            method, path, header_params=headers, auth_settings=["BearerToken"]
        )
        given = {key: value for key, value in (query or {}).items() if value not in (None, "")}
        if given:
            url += "?" + urlencode(given)
        return self._client.rest_client.request(
            method, url, headers=headers, body=body, _request_timeout=(CONNECT_SECONDS, seconds)
        )

    def _away(self, method: str, path: str, error: Exception) -> Unavailable:
        host = self._client.configuration.host
        return Unavailable(
            f"The API server {host} did not answer {method} {path}: {type(error).__name__}: {error}. "
            "Is the cluster there, and does the kubeconfig name it?",
            host=host,
        )


def _lines(response: Any) -> Iterator[str]:
    rest = b""
    for chunk in response.stream(2**16):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


# -- statuses ------------------------------------------------------------------------------------


def _translated(status: int, body: bytes, request: str) -> RaysysError:
    answer = _status_object(body)
    said = answer.get("message") or body.decode(errors="replace")[:500] or "no reason given"
    fields = {"code": status, "reason": answer.get("reason", "")}
    if status == 404:
        return NotFound(f"{request}: {said}", **fields)
    if status == 401:
        return Forbidden(
            f"{request}: the API server does not know who asks ({said}). Log in again.", **fields
        )
    if status == 403:
        return Forbidden(
            f"{request}: {said}. Ask for that right, or use another account.", **fields
        )
    if status == 410:
        return Expired(f"{request}: {said}", **fields)
    if status == 409:
        return Conflict(f"{request}: {said}", causes=_causes(answer), **fields)
    # Server-side apply of an unknown field of a built-in kind is called an internal error.
    if status in (400, 413, 415, 422) or "field not declared in schema" in said:
        return InvalidInput(f"{request}: {said}", issues=_issues(answer, said), **fields)
    return Unavailable(f"{request}: the API server answered {status}: {said}", **fields)


def _status_object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _causes(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list((answer.get("details") or {}).get("causes") or ())


def _issues(answer: Mapping[str, Any], said: str) -> list[dict[str, Any]]:
    """Return the faults that the API server names: causes of a refusal, or the fields of a strict decoding error."""
    causes = [
        {"loc": [cause.get("field", "")], "reason": cause.get("message", "")}
        for cause in _causes(answer)
    ]
    unknown = (strict or typed for strict, typed in STRICT.findall(said))
    return causes or [{"loc": [name], "reason": "unknown field"} for name in unknown]


# -- who asks, and whom --------------------------------------------------------------------------


def open_api(context: str = "", timeout_seconds: float = TIMEOUT_SECONDS) -> Api:
    """Return the API server of the Pod that this runs in, else the one that the kubeconfig's context names.

    Raises Unavailable when there is neither.
    """
    from kubernetes import client, config

    configuration = client.Configuration()
    configuration.retries = False  # who waits tries again; who writes wants to know
    try:
        if SERVICE_ACCOUNT.exists() and not context:
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(context=context or None, client_configuration=configuration)
    except config.ConfigException as error:
        raise Unavailable(
            f"No cluster is known: {error}. Set KUBECONFIG, or name a context with --context."
        ) from error
    return Api(client.ApiClient(configuration), timeout_seconds)
