"""The loop that keeps a replica's slot on the champion, whatever else is down; no HTTP, no Ray."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime

from raysys import log
from raysys.errors import NotFound, RaysysError, Unavailable
from raysys.records import LoadedVersion
from raysys.serving.loader import LoadedModel
from raysys.serving.offers import LastGood, Offers
from raysys.serving.slot import Slot

LONG_POLL_SECONDS = 30.0
RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 15.0


class Follower:
    """Asks `offers` for the champion again and again, and lets `slot` serve it."""

    def __init__(self, replica: str, slot: Slot, offers: Offers, last_good: LastGood) -> None:
        self.replica = replica
        self.slot = slot
        self.reachable = False
        self._offers = offers
        self._last_good = last_good
        self._known: str | None = None
        self._started_at = datetime.now(UTC)
        self._failures = 0

    async def start(self, timeout_seconds: float) -> None:
        """Load the champion, or this machine's last good version when nobody tells in time."""
        try:
            await asyncio.wait_for(self._step(wait_seconds=0), timeout_seconds)
        except (TimeoutError, RaysysError) as error:
            log.get("serving").warning(
                "watcher unreachable", family=self._family, error=str(error), replica=self.replica
            )
        if self.slot.current is None:
            await self._recall()

    async def run(self) -> None:
        """Follow the champion until cancelled."""
        while True:
            try:
                await self._step(LONG_POLL_SECONDS)
                self._failures = 0
            except RaysysError as error:
                await self._pause(error)
            except Exception:  # noqa: BLE001  the rim of the loop: a replica must never stop following
                log.get("serving").exception("following failed", family=self._family)
                await self._pause(None)

    async def version(self, version: str) -> LoadedModel:
        """Return one version of the family, loading it when it is not the current one.

        Raises NotFound when there is no such version, ModelRefused when it is no good, and
        Unavailable when nobody tells.
        """
        found = self.slot.find(version)
        if found is not None:
            return found
        if not version.isdecimal():
            raise NotFound(f"{self._family} has no version {version!r}: versions are numbers.")
        return await self.slot.pin(await self._offers.version(self._family, version))

    def state(self) -> LoadedVersion:
        """Return what this replica serves, and why it refused what it was offered last."""
        current = self.slot.current
        return LoadedVersion(
            replica=self.replica,
            family=self._family,
            version=current.version if current else "",
            sha256=current.sha256 if current else "",
            loaded_at=current.loaded_at if current else self._started_at,
            refused=self.slot.refused.get(self._known) if self._known else None,
        )

    @property
    def _family(self) -> str:
        return self.slot.family.name

    async def _step(self, wait_seconds: float) -> None:
        offer = await self._offers.next(self.state(), self._known, wait_seconds)
        self.reachable = True
        if offer is None:
            return
        serves = await self.slot.offer(offer)
        self._known = offer.version
        if serves:
            await asyncio.to_thread(self._last_good.keep, offer)

    async def _recall(self) -> None:
        offer = await asyncio.to_thread(self._last_good.recall, self._family)
        if offer is not None:
            await self.slot.offer(offer)

    async def _pause(self, error: RaysysError | None) -> None:
        self.reachable = not isinstance(error, Unavailable)
        self._failures += 1
        wait = min(RETRY_SECONDS * 2 ** min(self._failures - 1, 6), LONGEST_RETRY_SECONDS)
        # Spread, so that not all replicas knock at once at a watcher that has just come back.
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311  no secret depends on it
