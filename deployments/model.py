"""The deployment of one family: ASGI over its dataplane, and the loop that keeps its model fresh."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from deployments.dataplane import Dataplane
from deployments.http import (
    BODY_SECONDS,
    Application,
    Life,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    problem_of,
    send_response,
)
from deployments.keys import Keys
from raysys import families, log, tracing
from raysys.errors import NotFound
from raysys.records import LoadedVersion
from raysys.serving import request_log
from raysys.serving.follower import Follower
from raysys.serving.offers import LastGood
from raysys.serving.prediction_log import PredictionLog, to_database
from raysys.serving.scaling import BUSY, Busyness
from raysys.serving.slot import Slot
from raysys.serving.tally import Tally
from raysys.serving.trial import TrialFollower
from raysys.settings import Settings

FIRST_MODEL_SECONDS = 8.0
FLUSH_SECONDS = 5.0
CACHE = "cache"


class ModelApp(Application):
    """The ASGI application of one family: one path, answered by its dataplane."""

    def __init__(
        self,
        dataplane: Dataplane,
        path: str,
        limit_bytes: int,
        life: Life = nullcontext,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        super().__init__(limit_bytes, life, body_seconds)
        self._dataplane = dataplane
        self._paths = (path, path + "/")

    async def handle(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  the base names them
        """Let the dataplane answer what is asked at the family's path."""
        if request.path in self._paths:
            response = await self._dataplane.answer(request)
        else:
            missing = NotFound(f"There is nothing at {request.path}; post to {self._paths[0]}.")
            response = problem_of(missing, request.path)
        await send_response(response, send)


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
        self._settings = settings
        self._path = f"/predict/{kind.route}"
        self._tally = Tally(family) if settings.metrics else None
        slot = Slot(kind)
        self._follower = Follower(replica, slot, WatcherOffers(), cache)
        self._trials = TrialFollower(replica, slot, WatcherOffers())
        self._log = _prediction_log(family, settings)
        keys = Keys(settings.predict_keys.get_secret_value())
        self._dataplane = Dataplane(
            kind,
            self._follower,
            self._tally,
            trials=self._trials,
            log=self._log,
            keys=keys or None,
            requests=request_log.of(family, settings),
            tracer=tracing.tracer(),
        )
        self._busyness: Busyness | None = None
        self._loops: list[asyncio.Task[None]] = []

    def __serve_build_asgi_app__(self) -> ModelApp:
        settings = self._settings
        return ModelApp(
            self._dataplane, self._path, settings.max_body_bytes, self._life, settings.body_seconds
        )

    @asynccontextmanager
    async def _life(self) -> AsyncIterator[None]:
        if self._log is not None:
            self._log.start()
        await self._follower.start(FIRST_MODEL_SECONDS)
        self._loops = [
            asyncio.create_task(self._follower.run(), name="follow"),
            asyncio.create_task(self._trials.run(), name="try"),
            asyncio.create_task(self._flush_forever(), name="flush"),
        ]
        yield
        for task in self._loops:
            task.cancel()
        if self._log is not None:
            await asyncio.to_thread(self._log.close)

    async def forward(
        self, method: str, path: str, query: bytes, headers: dict[bytes, bytes], body: bytes
    ) -> Response:
        """Answer a request that the gateway took."""
        return await self._dataplane.answer(Request(method, path, query, headers, body))

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Serve how busy the event loop was, for the policy of the autoscaler."""
        if self._busyness is None:
            self._busyness = Busyness()
        return {BUSY: self._busyness.share()}

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
                self._flush()
            except Exception:  # noqa: BLE001  the rim: metrics must not end a replica
                log.get("serving").exception("metrics were not sent")

    def _flush(self) -> None:
        tally, follower = self._tally, self._follower
        if tally is None:
            return
        if self._log is not None:
            tally.logged, self._log.outcomes = self._log.outcomes, Counter()
        tally.flush(follower.state(), len(follower.slot.refused), follower.reachable)


def _prediction_log(family: str, settings: Settings) -> PredictionLog | None:
    most, share = settings.prediction_log_per_second, settings.prediction_log_share
    return PredictionLog(family, to_database(settings), most, share) if most and share else None
