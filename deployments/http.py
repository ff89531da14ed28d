"""HTTP as ASGI gives it: bodies in, answers and RFC 9457 problems out; no route, no model."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import AbstractAsyncContextManager, nullcontext
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from raysys import log
from raysys.errors import InvalidInput, RaysysError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Life = Callable[[], AbstractAsyncContextManager[None]]

JSON = b"application/json"
PROBLEM = b"application/problem+json"
RETRY_AFTER_SECONDS = 1
REQUEST_ID = b"x-request-id"
TRACE = b"traceparent"
BODY_SECONDS = 10.0


class Request(NamedTuple):
    """A whole request: lower-case header names, the path without the query."""

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes


class Response(NamedTuple):
    """A whole answer; `content_length` is added when it is sent."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class HttpError(Exception):
    """A request that HTTP itself refuses: method, media type, size, syntax."""

    def __init__(
        self, status: int, detail: str, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


class Disconnected(Exception):
    """The client went away before its request was whole; there is nobody to answer."""


def answer(value: Any, status: int = 200) -> Response:
    """Return `value` as a JSON answer."""
    return Response(status, msgspec.json.encode(value))


def problem(
    status: int,
    detail: str,
    *,
    path: str = "",
    errors: list[dict[str, Any]] | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Response:
    """Return an RFC 9457 problem; `errors` names each wrong field by `loc` and `reason`.

    The member `error` repeats the detail under the name that the Open Inference Protocol gives it.
    """
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "error": detail,
    }
    if path:
        body["instance"] = path
    if errors is not None:
        body["errors"] = errors
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = (*headers, (b"retry-after", b"%d" % RETRY_AFTER_SECONDS))
    return Response(status, _encoded(body), PROBLEM, headers)


def problem_of(
    error: Exception, path: str = "", headers: dict[bytes, bytes] | None = None
) -> Response:
    """Return the problem for `error`; an unknown error is logged, and says nothing to the caller."""
    if isinstance(error, HttpError):
        return problem(error.status, error.detail, path=path, headers=error.headers)
    if isinstance(error, InvalidInput):
        return problem(422, error.message, path=path, errors=error.issues)
    if isinstance(error, RaysysError) and error.status != 500:
        return problem(error.status, error.message, path=path)
    ids = {
        name.decode(): headers[name].decode("latin-1")[:128]
        for name in (REQUEST_ID, TRACE)
        if headers and name in headers
    }
    log.get("http").error("request failed", path=path, **ids, exc_info=error)
    return problem(500, "The request failed here; the log of the server says why.", path=path)


async def read_request(
    scope: Scope, receive: Receive, limit_bytes: int, body_seconds: float = BODY_SECONDS
) -> Request:
    """Read a whole request; raises HttpError 413 as soon as its body is over the limit.

    Raises HttpError 408 when the rest of a body does not come within `body_seconds`.
    """
    headers = dict(scope["headers"])
    declared = headers.get(b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    message = await receive()
    body = message.get("body", b"")
    if message["type"] != "http.request":
        raise Disconnected
    if message.get("more_body", False):
        body = await _within(_rest_of_body(body, receive, limit_bytes), body_seconds)
    if len(body) > limit_bytes:
        raise _too_large(limit_bytes)
    return Request(scope["method"], scope["path"], scope.get("query_string", b""), headers, body)


async def _within(body: Coroutine[Any, Any, bytes], seconds: float) -> bytes:
    try:
        return await asyncio.wait_for(body, seconds)
    except TimeoutError as error:
        raise HttpError(408, f"The body was not whole after {seconds:g} s.") from error


async def _rest_of_body(first: bytes, receive: Receive, limit_bytes: int) -> bytes:
    chunks, size, more = [first], len(first), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        more = message.get("more_body", False)
    return b"".join(chunks)


async def send_response(response: Response, send: Send) -> None:
    """Send a whole answer."""
    headers: Headers = [
        (b"content-type", response.content_type),
        (b"content-length", b"%d" % len(response.body)),
        *response.headers,
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


class Application(ABC):
    """An ASGI application that has each request whole before it handles it; what cannot be read is a problem.

    A body may have `limit_bytes` and take `body_seconds`; `life` is entered before the first request.
    """

    def __init__(
        self, limit_bytes: int, life: Life = nullcontext, body_seconds: float = BODY_SECONDS
    ) -> None:
        self._limit_bytes = limit_bytes
        self._life = life
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the server: its life, or a request."""
        if scope["type"] == "lifespan":
            await _run_lifespan(receive, send, self._life)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return
        try:
            request = await read_request(scope, receive, self._limit_bytes, self._body_seconds)
        except HttpError as error:
            await send_response(problem_of(error, scope["path"]), send)
        except Disconnected:
            return
        else:
            await self.handle(request, scope, receive, send)

    @abstractmethod
    async def handle(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""


async def _run_lifespan(receive: Receive, send: Send, life: Life) -> None:
    # An exception of `life` is the server's: it does not start with an application that cannot.
    await receive()
    async with life():
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


def expect_json(request: Request) -> None:
    """Raise HttpError 415 unless the body is plain JSON by its headers, or they say nothing."""
    kind = request.headers.get(b"content-type", JSON).split(b";", 1)[0].strip().lower()
    if kind not in (JSON, b""):
        raise HttpError(415, f"Send application/json, not {_text(kind)}.", ((b"accept", JSON),))
    expect_plain(request)


def expect_plain(request: Request) -> None:
    """Raise HttpError 415 for a compressed body."""
    coding = request.headers.get(b"content-encoding", b"identity").strip().lower()
    if coding not in (b"identity", b""):
        raise HttpError(415, f"Send the body as it is, not as {_text(coding)}.")


def expect_method(request: Request, *allowed: str) -> None:
    """Raise HttpError 405 unless the method is one of `allowed`."""
    if request.method not in allowed:
        names = ", ".join(allowed)
        raise HttpError(
            405,
            f"{request.path} takes {names}, not {request.method}.",
            ((b"allow", names.encode()),),
        )


def _too_large(limit_bytes: int) -> HttpError:
    return HttpError(413, f"The body is larger than {limit_bytes:,} bytes.")


def _text(raw: bytes) -> str:
    return raw[:100].decode("latin-1")


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        # A lone surrogate that came in with the request: only escapes can carry it back.
        return json.dumps(body).encode()
