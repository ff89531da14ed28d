"""What stands before Serve in every replica: cheaper requests, and its refusals as problems."""

from __future__ import annotations

import uuid
from typing import Any

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.http import PROBLEM, REQUEST_ID, problem
from raysys.settings import Settings

NO_WATCH = (b"x-request-disconnect-disabled", b"?1")
PLAIN = b"text/plain"
ALLOWED: dict[str, Any] = {"allow_methods": ["GET", "POST", "PUT"], "allow_headers": ["*"]}
REASONS = {
    404: "There is no application at this path.",
    408: "The request took too long.",
    503: "Too many requests are waiting, or no replica is there. Try again shortly.",
}


def middlewares() -> list[Middleware]:
    """Return what Serve is to wrap its HTTP servers in; named by the environment of every node."""
    origins = Settings().cors_origins
    return [
        *([Middleware(CORSMiddleware, allow_origins=origins, **ALLOWED)] if origins else []),
        Middleware(Edge),
    ]


class Edge:
    """Tells Serve not to watch for disconnects, and turns its own plain refusals into problems.

    The watch costs two tasks and a queue a request, and pays only where answers take long.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = [*scope["headers"], NO_WATCH]
        if not any(name == REQUEST_ID for name, _ in headers):
            headers.append((REQUEST_ID, uuid.uuid4().hex.encode()))
        scope["headers"] = headers
        await self._app(scope, receive, _Refusals(scope["path"], send))


class _Refusals:
    """Sends on what the application sends, except for Serve's plain-text refusals."""

    def __init__(self, path: str, send: Send) -> None:
        self._path = path
        self._send = send
        self._body: bytes | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] in REASONS:
            message = self._translated(message)
        elif self._body is not None and message["type"] == "http.response.body":
            message = {"type": "http.response.body", "body": self._body}
            self._body = b""
        await self._send(message)

    def _translated(self, message: Message) -> Message:
        headers = list(message["headers"])
        kinds = [value for name, value in headers if name.lower() == b"content-type"]
        if not kinds or not kinds[0].startswith(PLAIN):
            return message
        refusal = problem(message["status"], REASONS[message["status"]], path=self._path)
        self._body = refusal.body
        kept = [h for h in headers if h[0].lower() == REQUEST_ID]
        length = (b"content-length", b"%d" % len(refusal.body))
        return {**message, "headers": [*kept, (b"content-type", PROBLEM), length, *refusal.headers]}
