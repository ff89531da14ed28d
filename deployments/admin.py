"""The routes of /admin: what the command line does, over HTTP, behind a bearer token."""

from __future__ import annotations

import hmac
import threading
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Body, Depends, Header, HTTPException, Query, Response
from pydantic import BaseModel, Field

from raysys.artifacts import Artifacts
from raysys.errors import InvalidInput, NotFound, Unavailable
from raysys.families.base import Family, Series
from raysys.records import QualityReport
from raysys.registry import Registry
from raysys.runtime import Runtime
from raysys.settings import Settings
from raysys.tokens import api_token

ACTOR = "admin-api"
LIVE_DAYS = 7


class TrainOrder(BaseModel):
    """How to train."""

    trials: int | None = Field(None, ge=1, le=1000, description="Trials of the search.")


class CrawlOrder(BaseModel):
    """Which days to crawl, both included; the source's own calendar."""

    since: date | None = None
    until: date | None = None


class ForkOrder(BaseModel):
    """From which step to go on in the copy; the failed one by default."""

    step: int | None = Field(None, ge=0)


class PromoteOrder(BaseModel):
    """Which version is to serve, and why."""

    version: Annotated[str, Field(pattern=r"^[0-9]{1,18}$")]
    reason: Annotated[str, Field(max_length=500)] = "asked for over HTTP"


class CanaryOrder(BaseModel):
    """Which version is to be tried beside the champion, how much, and how long."""

    version: Annotated[str, Field(pattern=r"^[0-9]{1,18}$")]
    percent: float = Field(10, ge=0, le=100, description="Share of the answers, in percent.")
    shadow: float = Field(0, ge=0, le=100, description="Share seen without answering, in percent.")
    bake_seconds: float = Field(600, ge=3, le=604_800)


class RollbackOrder(BaseModel):
    """Why the version before is to serve again."""

    reason: Annotated[str, Field(max_length=500)] = "asked for over HTTP"


class BackfillOrder(BaseModel):
    """The time whose moments are made up for."""

    since: datetime
    until: datetime
    limit: int = Field(31, ge=1, le=1000, description="Most runs to start.")


class Office:
    """The opened resources behind the routes, and the families they are about; for many threads."""

    def __init__(self, settings: Settings, served: list[Family]) -> None:
        self.settings = settings
        self.families = {family.name: family for family in served}
        self._opened = ExitStack()
        self._runtime = self._opened.enter_context(Runtime(settings))
        self._lock = threading.Lock()

    @cached_property
    def token(self) -> bytes:
        """The bearer token."""
        return api_token(self.settings).encode()

    @property
    def durable(self) -> Any:
        """The client of the workflow engine."""
        with self._lock:
            return self._runtime.durable

    @property
    def registry(self) -> Registry:
        """The model registry."""
        with self._lock:
            return self._runtime.registry

    @property
    def engine(self) -> Any:
        """The application's database."""
        with self._lock:
            return self._runtime.engine

    @property
    def artifacts(self) -> Artifacts:
        """The store of snapshots, models and reports."""
        with self._lock:
            return self._runtime.artifacts

    def close(self) -> None:
        """Close what was opened."""
        self._opened.close()

    def family(self, name: str) -> Family:
        """Return a served family by its name or its route; raises NotFound."""
        for family in self.families.values():
            if name in (family.name, family.route):
                return family
        raise NotFound(f"There is no family {name[:100]!r}. Served: {', '.join(self.families)}.")


def admin_router(office: Office) -> APIRouter:
    """Return all routes of /admin."""

    def authorized(authorization: Annotated[str | None, Header()] = None) -> None:
        _check_token(office.token, authorization)

    router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(authorized)])
    _add_orders(router, office)
    _add_runs(router, office)
    _add_schedules(router, office)
    _add_models(router, office)
    _add_quality(router, office)
    return router


def _check_token(token: bytes, authorization: str | None) -> None:
    kind, _, given = (authorization or "").partition(" ")
    if kind.lower() != "bearer" or not given:
        raise HTTPException(
            401, "Send `Authorization: Bearer TOKEN`.", {"WWW-Authenticate": "Bearer"}
        )
    if not hmac.compare_digest(given.strip().encode(), token):
        raise HTTPException(403, "The token is not the one of this server.")


def _add_orders(router: APIRouter, office: Office) -> None:
    @router.post("/train/{family}", status_code=202, summary="Train a family")
    def train(family: str, order: Annotated[TrainOrder | None, Body()] = None) -> Response:
        name = office.family(family).name
        run = office.durable.start("train", name, order.trials if order else None)
        return _json({"id": run}, 202)

    @router.post("/crawl/{family}", status_code=202, summary="Crawl a family's source")
    def crawl(family: str, order: Annotated[CrawlOrder | None, Body()] = None) -> Response:
        kind = office.family(family)
        if not isinstance(kind.data, Series):
            raise InvalidInput(
                f"{kind.name} has no source to crawl; import a file.",
                issues=[{"loc": ["family"], "reason": "is not crawled"}],
            )
        days = order or CrawlOrder()
        run = office.durable.start("crawl", kind.name, _day(days.since), _day(days.until))
        return _json({"id": run}, 202)


def _add_runs(router: APIRouter, office: Office) -> None:
    @router.get("/runs", summary="Runs of workflows, newest first")
    def runs(
        name: str | None = None,
        family: str | None = None,
        status: str | None = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> Response:
        return _json(office.durable.list(name=name, family=family, status=status, limit=limit))

    @router.get("/runs/{run}", summary="A run, its steps and its events")
    def show(run: str) -> Response:
        found = office.durable.run(run)
        steps, events = office.durable.steps(run), office.durable.events(run)
        return _json({"run": found, "steps": steps, "events": [e for _, e in events]})

    @router.post("/runs/{run}/cancel", summary="Cancel a run")
    def cancel(run: str) -> Response:
        office.durable.cancel(run)
        return _json(office.durable.run(run))

    @router.post("/runs/{run}/resume", summary="Let a stopped run go on")
    def resume(run: str) -> Response:
        office.durable.resume(run)
        return _json(office.durable.run(run))

    @router.post("/runs/{run}/fork", status_code=202, summary="Copy a run from a step on")
    def fork(run: str, order: Annotated[ForkOrder | None, Body()] = None) -> Response:
        return _json({"id": office.durable.fork(run, order.step if order else None)}, 202)

    @router.delete("/runs/{run}", status_code=204, summary="Forget a run that has ended")
    def delete(run: str) -> Response:
        from raysys.pipelines import retention

        retention.forget_ended(office.durable, office.engine, office.artifacts, run)
        return Response(status_code=204)


def _add_schedules(router: APIRouter, office: Office) -> None:
    @router.get("/schedules", summary="Workflows that start by the clock")
    def schedules() -> Response:
        return _json(office.durable.schedules())

    # Before the other verbs: the first route that fits a path has it.
    @router.post("/schedules/{name}/backfill", summary="Make up for moments that were missed")
    def backfill(name: str, order: BackfillOrder) -> Response:
        since, until = _aware(order.since), _aware(order.until)
        return _json({"ids": office.durable.backfill_schedule(name, since, until, order.limit)})

    @router.post("/schedules/{name}/{verb}", summary="Pause, resume or trigger a schedule")
    def act(name: str, verb: Literal["pause", "resume", "trigger"]) -> Response:
        actions: dict[str, Callable[[str], str | None]] = {
            "pause": office.durable.pause_schedule,
            "resume": office.durable.resume_schedule,
            "trigger": office.durable.trigger_schedule,
        }
        run = actions[verb](name)
        return _json({"name": name, "did": verb, "id": run})


def _add_models(router: APIRouter, office: Office) -> None:
    @router.get("/models", summary="Versions of all families, and which replica serves what")
    def models() -> Response:
        found = {name: office.registry.versions(name) for name in office.families}
        return _json({"versions": found, "serving": _serving()})

    @router.get("/models/{family}", summary="Versions of a family, newest first")
    def versions(family: str) -> Response:
        name = office.family(family).name
        return _json({"versions": office.registry.versions(name), "serving": _serving(name)})

    @router.post("/models/{family}/promote", summary="Let a version serve")
    def promote(family: str, order: PromoteOrder) -> Response:
        from raysys.pipelines import promote as moves

        done = moves.promote(
            office.engine,
            office.registry,
            family=office.family(family).name,
            version=order.version,
            report={},
            **_signed(order.reason),
        )
        hurry()
        return _json(done)

    @router.post("/models/{family}/canary", status_code=202, summary="Try a version on traffic")
    def canary(family: str, order: CanaryOrder) -> Response:
        name = office.family(family).name
        office.registry.version(name, order.version)
        asked = (order.version, order.percent, order.shadow, order.bake_seconds)
        return _json({"id": office.durable.start("canary", name, *asked)}, 202)

    @router.post("/models/{family}/rollback", summary="Let the version before serve again")
    def rollback(family: str, order: Annotated[RollbackOrder | None, Body()] = None) -> Response:
        from raysys.pipelines import promote as moves

        done = moves.rollback(
            office.engine,
            office.registry,
            family=office.family(family).name,
            **_signed((order or RollbackOrder()).reason),
        )
        hurry()
        return _json(done)

    @router.get("/models/{family}/history", summary="Promotions of a family, newest first")
    def history(family: str, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> Response:
        from raysys.store import promotions

        return _json(promotions.history(office.engine, office.family(family).name, limit))


def _add_quality(router: APIRouter, office: Office) -> None:
    @router.get("/quality/{family}", summary="Live error of a family's versions, newest first")
    def quality(
        family: str,
        live: Annotated[bool, Query(description="As of now, and without the baseline.")] = False,
    ) -> Response:
        from raysys.pipelines import quality as measuring

        kind = office.family(family)
        # To fit a baseline takes what only trainings import: the hourly run does, and keeps its report.
        kept = None if live else measuring.published(office.artifacts, kind.name)
        return _json(kept or _live_quality(office, kind))


def _live_quality(office: Office, family: Family) -> QualityReport:
    from raysys.pipelines import quality

    versions = office.registry.versions(family.name)
    given: Any = {"days": LIVE_DAYS, "step": timedelta(days=1), "now": datetime.now(UTC)}
    return quality.report(office.engine, family, versions, **given)


def _serving(family: str | None = None) -> dict[str, Any]:
    import ray

    from raysys.serving.watcher import watcher_state

    try:
        if not ray.is_initialized():
            raise Unavailable("There is no cluster here.")
        state = watcher_state()
    except Unavailable as error:
        return {"watcher": {"reachable": False, "error": error.message}, "replicas": []}
    sightings = [s for s in state.families if family in (None, s.family)]
    return {
        "watcher": {"reachable": state.reachable, "error": state.error},
        "aliases": {s.family: s.aliases for s in sightings},
        "refused": {s.family: s.refused for s in sightings if s.refused},
        "trials": [
            {"family": s.family, "rollout": s.rollout, "tried": s.tried}
            for s in sightings
            if s.rollout
        ],
        "replicas": [r for r in state.replicas if family in (None, r.family)],
    }


def hurry() -> None:
    """Let the watcher look at the registry now; without one, the next poll of its successor finds out."""
    import ray

    from raysys.serving.watcher import poke

    if ray.is_initialized():
        poke()


def _signed(reason: str) -> dict[str, Any]:
    move = f"{ACTOR}-{uuid.uuid4()}"
    return {"actor": ACTOR, "reason": reason, "id": move, "now": datetime.now(UTC)}


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _day(day: date | None) -> str | None:
    return day.isoformat() if day else None


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
