"""The routes at `/` that name no family: health, server metadata, documentation, admin, and 404."""

from __future__ import annotations

import hmac
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.responses import Response as Answer
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Match, Route

from deployments.admin import Office, admin_router, hurry
from deployments.health import Health
from deployments.http import Response, problem, problem_of
from deployments.openapi import document
from raysys.errors import InvalidInput, RaysysError
from raysys.families.base import Family
from raysys.tokens import hook_key

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>raysys</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<link rel="icon" href="docs/assets/favicon-32x32.png">
</head>
<body>
<div id="ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#ui", deepLinking: true});\n'


def build_site(office: Office, health: Health) -> FastAPI:
    """Return the application of all routes that name no family."""
    site = FastAPI(title="raysys", version=version("raysys"), openapi_url=None, docs_url=None)
    _add_health(site, health)
    _add_v2(site, health)
    site.include_router(admin_router(office))
    _add_hooks(site, hook_key(office.settings))
    _add_documentation(site, list(office.families.values()))
    _add_problems(site)
    return site


def _add_health(site: FastAPI, health: Health) -> None:
    @site.get("/healthz", tags=["health"], summary="Whether the gateway runs")
    async def healthz() -> dict[str, bool]:
        return {"live": True}

    @site.get("/readyz", tags=["health"], summary="Whether every family has a model loaded")
    async def readyz(
        family: Annotated[list[str] | None, Query(description="Only these families")] = None,
    ) -> dict[str, Any]:
        return {"ready": True, "models": await health.versions(family)}


def _add_v2(site: FastAPI, health: Health) -> None:
    @site.get("/v2", tags=["v2"], summary="Metadata of the server")
    async def metadata() -> dict[str, Any]:
        return {
            "name": "raysys",
            "version": version("raysys"),
            "extensions": ["binary_tensor_data"],
        }

    @site.get("/v2/health/live", tags=["v2"], summary="Whether the server runs")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @site.get("/v2/health/ready", tags=["v2"], summary="Whether every family has a model loaded")
    async def ready() -> dict[str, bool]:
        await health.versions()
        return {"ready": True}


def _add_hooks(site: FastAPI, key: str) -> None:
    from raysys.serving.watcher import HOOK_PATH

    @site.post(HOOK_PATH + "{given}", status_code=204, include_in_schema=False)
    def alias_moved(given: str) -> Answer:
        if not hmac.compare_digest(given.encode(), key.encode()):
            raise HTTPException(404)
        hurry()
        return Answer(status_code=204)


def _add_documentation(site: FastAPI, served: list[Family]) -> None:
    from swagger_ui_bundle import swagger_ui_path

    @site.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(document(site, served))

    @site.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(PAGE)

    @site.get("/docs/start.js", include_in_schema=False)
    async def start() -> Answer:
        return Answer(START, media_type="text/javascript")

    site.mount("/docs/assets", StaticFiles(directory=str(swagger_ui_path)))


def _add_problems(site: FastAPI) -> None:
    @site.exception_handler(RaysysError)
    async def ours(request: Request, error: RaysysError) -> Answer:
        headers = error.fields.get("headers", ())
        response = problem_of(error, request.url.path)
        return _answer(response._replace(headers=(*response.headers, *headers)))

    @site.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Answer:
        detail = error.detail
        if error.status_code == 404 and detail == "Not Found":
            detail = f"There is nothing at {request.url.path[:200]}; /docs tells what there is."
        told = dict(error.headers or {})
        if error.status_code == 405:
            told["Allow"] = _allowed(site, request)
        headers = tuple((k.encode(), v.encode()) for k, v in told.items())
        return _answer(problem(error.status_code, detail, path=request.url.path, headers=headers))

    @site.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Answer:
        return _answer(_invalid(error, request.url.path))

    @site.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Answer:
        return _answer(problem_of(error, request.url.path))


def _allowed(site: FastAPI, request: Request) -> str:
    # Starlette knows only the methods of the first route of a path.
    found = {
        method
        for route in site.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE
        for method in route.methods or ()
    }
    return ", ".join(sorted(found))


def _invalid(error: RequestValidationError, path: str) -> Response:
    found = error.errors()
    if any(fault["type"] == "json_invalid" for fault in found):
        return problem(400, "The body is not JSON.", path=path)
    issues = [{"loc": list(fault["loc"][1:]), "reason": fault["msg"]} for fault in found]
    where = ", ".join(".".join(map(str, issue["loc"])) or "body" for issue in issues)
    return problem_of(InvalidInput(f"Not valid: {where}.", issues=issues), path)


def _answer(response: Response) -> Answer:
    headers = {name.decode(): value.decode() for name, value in response.headers}
    return Answer(
        response.body,
        response.status,
        headers,
        media_type=response.content_type.decode(),
    )
