"""The deployment of one family: ASGI over its dataplane, and the loop that keeps its model fresh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from deployments.dataplane import Dataplane
from deployments.http import (
    Disconnected,
    HttpError,
    Life,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    problem_of,
    read_request,
    run_lifespan,
    send_response,
)
from raysys import families, log
from raysys.errors import NotFound
from raysys.metrics import Tally
from raysys.records import LoadedVersion
from raysys.serving.follower import Follower
from raysys.serving.offers import LastGood
from raysys.serving.slot import Slot
from raysys.serving.trial import TrialFollower
from raysys.settings import Settings

FIRST_MODEL_SECONDS = 8.0
FLUSH_SECONDS = 5.0
CACHE = "cache"


class ModelApp:
    """The ASGI application of one family: one path, answered by its dataplane."""

    def __init__(
        self, dataplane: Dataplane, path: str, limit_bytes: int, life: Life = nullcontext
    ) -> None:
        self._life = life
        self._dataplane = dataplane
        self._paths = (path, path + "/")
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await run_lifespan(receive, send, self._life)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return
        try:
            request = await read_request(scope, receive, self._limit_bytes)
        except HttpError as error:
            await send_response(problem_of(error, scope["path"]), send)
        except Disconnected:
            return
        else:
            await send_response(await self._answer(request), send)

    async def _answer(self, request: Request) -> Response:
        if request.path not in self._paths:
            missing = NotFound(f"There is nothing at {request.path}; post to {self._paths[0]}.")
            return problem_of(missing, request.path)
        return await self._dataplane.answer(request)


class FamilyReplica:
    """What Serve runs one or many of for each family.

    It starts without a model when there is none, says so with 503, and takes the first that comes.
    """

    def __init__(self, family: str) -> None:
        from ray import serve

        from raysys.serving.watcher import WatcherOffers

        settings = Settings()
        log.configure(settings)
        kind = families.get(family)
        replica = serve.get_replica_context().replica_id.unique_id
        cache = LastGood(settings.home / CACHE)
        self._limit_bytes = settings.max_body_bytes
        self._path = f"/predict/{kind.route}"
        self._tally = Tally(family)
        slot = Slot(kind)
        self._follower = Follower(replica, slot, WatcherOffers(), cache)
        self._trials = TrialFollower(replica, slot, WatcherOffers())
        self._dataplane = Dataplane(kind, self._follower, self._tally, self._trials)
        self._loops: list[asyncio.Task[None]] = []

    def __serve_build_asgi_app__(self) -> ModelApp:
        return ModelApp(self._dataplane, self._path, self._limit_bytes, self._life)

    @asynccontextmanager
    async def _life(self) -> AsyncIterator[None]:
        await self._follower.start(FIRST_MODEL_SECONDS)
        self._loops = [
            asyncio.create_task(self._follower.run(), name="follow"),
            asyncio.create_task(self._trials.run(), name="try"),
            asyncio.create_task(self._flush_forever(), name="flush"),
        ]
        yield
        for task in self._loops:
            task.cancel()

    async def forward(
        self, method: str, path: str, query: bytes, headers: dict[bytes, bytes], body: bytes
    ) -> Response:
        """Answer a request that the gateway took."""
        return await self._dataplane.answer(Request(method, path, query, headers, body))

    async def status(self) -> LoadedVersion:
        """Return what this replica serves."""
        return self._follower.state()

    def check_health(self) -> None:
        """Raise when a loop of this replica has ended: it would serve an old model for ever."""
        ended = [task.get_name() for task in self._loops if task.done()]
        if ended:
            raise RuntimeError(f"the loops {ended} of this replica have ended")

    async def _flush_forever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                current = self._follower.slot.current
                version = current.version if current else ""
                self._tally.flush(version, len(self._follower.slot.refused))
            except Exception:  # noqa: BLE001  the rim: metrics must not end a replica
                log.get("serving").exception("metrics were not sent")
