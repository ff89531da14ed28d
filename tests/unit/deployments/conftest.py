"""A family's application without Ray, called through ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from deployments.admin import Office
from deployments.dataplane import Dataplane
from deployments.feedback import Desk
from deployments.gateway import Door, GatewayApp
from deployments.health import Health
from deployments.http import Request, Response
from deployments.model import ModelApp
from deployments.open_inference import Codec
from deployments.site import build_site
from raysys.families.base import Family
from raysys.records import LoadedVersion
from raysys.serving.follower import Follower
from raysys.serving.offers import LastGood
from raysys.serving.slot import Slot
from raysys.serving.tally import Tally
from raysys.settings import Settings
from tests.unit.serving.tiny import Fruits, HandOffers, Waves, offer, scaled

LIMIT_BYTES = 20_000


class Served:
    """One family's application with version 1 (times 2) loaded, version 2 (times 3) on demand."""

    def __init__(self, family: Family, width: int, folder: Path, loaded: bool = True) -> None:
        self.family = family
        self.path = f"/predict/{family.route}"
        champion = offer(family, "1", scaled(width, 2.0))
        self.offers = HandOffers(champion if loaded else None)
        self.offers.versions["2"] = offer(family, "2", scaled(width, 3.0))
        self.follower = Follower("r1", Slot(family), self.offers, LastGood(folder))
        self.tally = Tally(family.name)
        self.dataplane = Dataplane(family, self.follower, self.tally)
        self.codec = Codec(family)
        self.app = ModelApp(self.dataplane, self.path, LIMIT_BYTES)
        self.folder = folder
        asyncio.run(self.follower.start(5))

    @cached_property
    def office(self) -> Office:
        """What the admin routes work with."""
        settings = Settings(
            home=self.folder,
            api_token=SecretStr("secret"),
            mlflow_tracking_uri="http://127.0.0.1:9",  # the port of nobody
        )
        return Office(settings, [self.family])

    @cached_property
    def gateway(self) -> GatewayApp:
        """The gateway before this family alone."""
        site = build_site(self.office, Health({self.family.name: self}))
        doors: dict[str, Door] = {self.family.name: self, self.family.route: self}
        return GatewayApp(doors, site, LIMIT_BYTES, desk=Desk(self.office))

    def call(self, method: str, path: str = "", **request: Any) -> httpx.Response:
        """Send one request; `path` is the family's own by default."""
        return asyncio.run(self._call(method, path or self.path, **request))

    def through_gateway(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send one request to the gateway before this family."""
        return asyncio.run(self._call(method, path, self.gateway, **request))

    async def forward(self, request: Request) -> Response:
        """See `Door.forward`."""
        return await self.dataplane.answer(request)

    async def status(self) -> LoadedVersion:
        """See `Door.status`."""
        return self.follower.state()

    async def _call(
        self, method: str, path: str, app: Any = None, **request: Any
    ) -> httpx.Response:
        transport = httpx.ASGITransport(app=app or self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **request)


@pytest.fixture
def fruits(tmp_path: Path) -> Served:
    """A family whose requests have fields, and may be lists."""
    return Served(Fruits(), 2, tmp_path)


@pytest.fixture
def waves(tmp_path: Path) -> Served:
    """A family whose requests are lists of four numbers."""
    return Served(Waves(), 4, tmp_path)


@pytest.fixture
def modelless(tmp_path: Path) -> Served:
    """A family that was never trained."""
    return Served(Fruits(), 2, tmp_path, loaded=False)


@pytest.fixture(scope="session")
def make_served(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family, int], Served]:
    """A maker of applications for tests that share one."""
    return lambda family, width: Served(family, width, tmp_path_factory.mktemp("cache"))
