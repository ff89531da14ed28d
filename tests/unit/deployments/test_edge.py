"""What stands before Serve."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from deployments.edge import Edge, middlewares


async def refuse(request: Request) -> PlainTextResponse:
    status = int(request.path_params["status"])
    return PlainTextResponse("dropped", status, {"retry-after": "1", "x-request-id": "r1"})


async def answer(request: Request) -> JSONResponse:
    return JSONResponse(dict(request.headers), int(request.path_params["status"]))


INNER = Starlette(routes=[Route("/refuse/{status}", refuse), Route("/answer/{status}", answer)])


def get(path: str) -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app=Edge(INNER))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    return asyncio.run(call())


@pytest.mark.parametrize("status", [404, 408, 503])
def test_plain_refusals_become_problems(status: int) -> None:
    told = get(f"/refuse/{status}")
    assert told.headers["content-type"] == "application/problem+json"
    assert (told.status_code, told.json()["status"]) == (status, status)
    assert told.headers["x-request-id"] == "r1"
    assert told.headers.get("retry-after") == ("1" if status == 503 else None)
    assert int(told.headers["content-length"]) == len(told.content)


@pytest.mark.parametrize("path", ["/answer/200", "/answer/503", "/refuse/200", "/refuse/418"])
def test_all_else_passes_as_it_is(path: str) -> None:
    told = get(path)
    assert not told.headers["content-type"].startswith("application/problem")


def test_serve_is_told_not_to_watch_for_disconnects() -> None:
    assert get("/answer/200").json()["x-request-disconnect-disabled"] == "?1"


def test_other_scopes_pass_untouched() -> None:
    seen: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    scope = {"type": "lifespan"}
    asyncio.run(Edge(inner)(scope, None, None))  # type: ignore[arg-type]
    assert seen == [{"type": "lifespan"}]


def test_serve_gets_starlette_middlewares() -> None:
    assert [each.cls for each in middlewares()] == [Edge]
