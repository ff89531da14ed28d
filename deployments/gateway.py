"""The deployment at `/`: it passes families' requests on, and answers all others."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, Protocol

from deployments.admin import Office
from deployments.feedback import Desk
from deployments.health import Health
from deployments.http import (
    Application,
    Life,
    Message,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    problem_of,
    send_response,
)
from deployments.keys import Keys
from raysys import families, log
from raysys.errors import NotFound, Unavailable
from raysys.records import LoadedVersion
from raysys.serving.config import DEPLOYMENT
from raysys.settings import Settings

FORWARD_SECONDS = 30.0
STATUS_SECONDS = 3.0
ENSURE_SECONDS = 5.0
FAMILY_PATH = re.compile(r"(?P<start>/predict/|/v2/models/)(?P<name>[^/]+)(?P<rest>/.*)?")
FEEDBACK_PATH = re.compile(r"/feedback/(?P<name>[^/]+)/?")


class Door(Protocol):
    """The way to one family's replicas. Raises Unavailable when none answers."""

    async def forward(self, request: Request) -> Response:
        """Let a replica answer."""

    async def status(self) -> LoadedVersion:
        """Ask a replica what it serves."""


class GatewayApp(Application):
    """The ASGI application at `/`.

    Requests that name a family go to its door, which stands under its name and under its route;
    what is said of its predictions goes to `desk`, and all others go to `site`.
    """

    def __init__(
        self,
        doors: dict[str, Door],
        site: Any,
        limit_bytes: int,
        life: Life = nullcontext,
        desk: Desk | None = None,
    ) -> None:
        super().__init__(limit_bytes, life)
        self._desk = desk
        self._site = site
        self._doors = doors

    async def handle(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on to a family, the desk or the site."""
        answering = self._answering(request.path)
        if answering is None:
            await self._site(scope, _Replayed(request.body, receive), send)
            return
        try:
            response = await answering(request)
        except Exception as error:  # noqa: BLE001  the rim: whatever comes in, the gateway goes on
            response = problem_of(error, request.path)
        await send_response(response, send)

    def _answering(self, path: str) -> Callable[[Request], Awaitable[Response]] | None:
        """Return what answers requests to `path`, or None where the site does."""
        match = FAMILY_PATH.fullmatch(path)
        if match is not None:
            return partial(self._forward, match=match)
        said = FEEDBACK_PATH.fullmatch(path)
        if said is not None and self._desk is not None:
            return partial(self._desk.answer, name=said["name"])
        return None

    async def _forward(self, request: Request, match: re.Match[str]) -> Response:
        door = self._doors.get(match["name"])
        if door is None:
            known = ", ".join(sorted(self._doors))
            raise NotFound(f"There is no family {match['name'][:100]!r}. Served: {known}.")
        if match["start"] == "/predict/" and match["rest"] not in (None, "/"):
            raise NotFound(f"There is nothing at {request.path}.")
        return await door.forward(request)


class _Replayed:
    """A body that was read already, for an application that reads it again."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class HandleDoor:
    """The door through Serve's handle of a family's deployment."""

    def __init__(self, family: str) -> None:
        self._family = family
        self._handle: Any = None

    async def forward(self, request: Request) -> Response:
        """See `Door.forward`."""
        return Response(*await self._call("forward", FORWARD_SECONDS, *request))

    async def status(self) -> LoadedVersion:
        """See `Door.status`."""
        state: LoadedVersion = await self._call("status", STATUS_SECONDS)
        return state

    async def _call(self, method: str, seconds: float, *args: Any) -> Any:
        from ray import exceptions, serve
        from ray.serve.exceptions import RayServeException

        try:
            if self._handle is None:
                self._handle = serve.get_deployment_handle(DEPLOYMENT, app_name=self._family)
            return await asyncio.wait_for(getattr(self._handle, method).remote(*args), seconds)
        except (exceptions.RayError, RayServeException, TimeoutError) as error:
            raise Unavailable(
                f"No replica of {self._family} answers ({type(error).__name__}). Try again shortly."
            ) from error


class GatewayReplica:
    """What Serve runs at `/`; it also keeps the watcher and the worker in being."""

    def __init__(self, served: list[str]) -> None:
        self._settings = Settings()
        log.configure(self._settings)
        self._doors: dict[str, Door] = {name: HandleDoor(name) for name in served}
        self._office = Office(self._settings, [families.get(name) for name in served])
        self._ensuring: asyncio.Task[None] | None = None

    def __serve_build_asgi_app__(self) -> GatewayApp:
        from deployments.site import build_site

        site = build_site(self._office, Health(self._doors))
        by_route = {f.route: self._doors[f.name] for f in self._office.families.values()}
        doors = {**self._doors, **by_route}
        keys = Keys(self._settings.predict_keys.get_secret_value())
        desk = Desk(self._office, keys or None)
        return GatewayApp(doors, site, self._settings.max_body_bytes, self._life, desk)

    @asynccontextmanager
    async def _life(self) -> AsyncIterator[None]:
        self._ensuring = asyncio.create_task(self._ensure_forever(), name="ensure")
        yield
        self._ensuring.cancel()
        self._office.close()

    def check_health(self) -> None:
        """Raise when the loop that keeps the actors in being has ended."""
        if self._ensuring is not None and self._ensuring.done():
            raise RuntimeError("the loop that keeps the actors in being has ended")

    async def _ensure_forever(self) -> None:
        while True:
            try:
                await asyncio.to_thread(_ensure_actors)
            except Exception:  # noqa: BLE001  the rim: Ray's head may be away, and comes back
                log.get("gateway").exception("actors were not ensured")
            await asyncio.sleep(ENSURE_SECONDS)


def _ensure_actors() -> None:
    from raysys.durable.hosting import ensure_worker
    from raysys.laptop.keeper import keep_services
    from raysys.serving.watcher import ensure_watcher

    settings = Settings()
    keep_services(settings)
    ensure_watcher()
    ensure_worker(settings)
