"""A challenger in one replica: its share of the answers, its shadow, its counts; no HTTP, no Ray."""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections import deque
from typing import Any

import numpy as np

from raysys import log
from raysys.errors import ModelRefused, RaysysError
from raysys.families.base import Array
from raysys.serving.loader import LoadedModel
from raysys.serving.offers import Offers
from raysys.serving.rollout import BUCKETS, Rollout, Tried, bucket
from raysys.serving.slot import Slot

IDLE_SECONDS = 30.0
REPORT_SECONDS = 1.0
SHADOW_WAITING = 64
PARTS = 10_000


class Trial:
    """A loaded challenger beside the champion of one replica, and what was counted of the two."""

    def __init__(self, rollout: Rollout, challenger: LoadedModel | None, refused: str | None):
        self.rollout = rollout
        self.refused = refused
        self._challenger = challenger
        self._answers = round(rollout.percent / 100 * PARTS) if challenger else 0
        self._shadows = rollout.shadow / 100 if challenger else 0.0
        self._requests = self._failures = self._champion_requests = 0
        self._times, self._champion_times = [0] * BUCKETS, [0] * BUCKETS
        self._compared, self._difference_sum, self._difference_most = 0, 0.0, 0.0
        self._waiting: deque[tuple[Array, Array]] = deque(maxlen=SHADOW_WAITING)

    def run(
        self, champion: LoadedModel, rows: Array, key: bytes | None
    ) -> tuple[LoadedModel, Array]:
        """Return the model that answers, and its output: the champion's where the challenger fails.

        Requests with the same `key` get the same model.
        """
        challenger = self._challenger
        if challenger is not None and self._chosen(key):
            output = self._try(challenger, rows, self._times)
            if output is not None:
                return challenger, output
        started = time.perf_counter()
        output = champion.run(rows)
        self._champion_requests += 1
        self._champion_times[bucket(time.perf_counter() - started)] += 1
        if self._shadows and random.random() < self._shadows:  # noqa: S311  a sample, no secret
            self._waiting.append((rows, output))
        return champion, output

    def shadow(self) -> None:
        """Run the challenger on what the champion answered meanwhile, and note how far apart they are."""
        while self._waiting and self._challenger is not None:
            rows, answered = self._waiting.popleft()
            # Its time here is another thread's as well, and proves nothing.
            output = self._try(self._challenger, rows, [0] * BUCKETS)
            if output is not None and output.shape == answered.shape:
                difference = float(np.abs(output - answered).mean())
                self._compared += 1
                self._difference_sum += difference
                self._difference_most = max(self._difference_most, difference)

    def tried(self) -> Tried:
        """Return what was counted so far."""
        return Tried(
            requests=self._requests,
            failures=self._failures,
            times=tuple(self._times),
            champion_requests=self._champion_requests,
            champion_times=tuple(self._champion_times),
            compared=self._compared,
            difference_sum=self._difference_sum,
            difference_most=self._difference_most,
            refused=self.refused,
        )

    def _chosen(self, key: bytes | None) -> bool:
        if key is None:
            return random.random() * PARTS < self._answers  # noqa: S311  a sample, no secret
        return zlib.crc32(self.rollout.version.encode() + key) % PARTS < self._answers

    def _try(self, challenger: LoadedModel, rows: Array, times: list[int]) -> Array | None:
        self._requests += 1
        started = time.perf_counter()
        try:
            output = challenger.run(rows)
        except Exception:  # noqa: BLE001  whatever a challenger raises, the champion answers
            self._failures += 1
            return None
        times[bucket(time.perf_counter() - started)] += 1
        if not np.isfinite(output).all():
            self._failures += 1
            return None
        return output


class TrialFollower:
    """The loop that keeps a replica's trial the one that the registry names, and tells its counts."""

    def __init__(self, replica: str, slot: Slot, offers: Offers) -> None:
        self.current: Trial | None = None
        self._replica = replica
        self._slot = slot
        self._offers = offers

    async def run(self) -> None:
        """Follow the family's rollout until cancelled."""
        while True:
            try:
                await self._step()
            except RaysysError:
                # The watcher is away; the champion's loop says so, and the trial goes on.
                await asyncio.sleep(REPORT_SECONDS)
            except Exception:  # noqa: BLE001  the rim of the loop: a replica must never stop following
                log.get("serving").exception("trial failed", family=self._slot.family.name)
                await asyncio.sleep(REPORT_SECONDS)

    async def _step(self) -> None:
        trial = self.current
        wait = IDLE_SECONDS
        if trial is not None:
            wait = REPORT_SECONDS
            await asyncio.to_thread(trial.shadow)
        known = None if trial is None else trial.rollout.id
        tried = None if trial is None else trial.tried()
        found = await self._offers.trial(self._replica, self._slot.family.name, known, tried, wait)
        if found is None:
            return
        rollout, offer = found
        self.current = None if rollout is None else await self._begin(rollout, offer)

    async def _begin(self, rollout: Rollout, offer: Any) -> Trial:
        if isinstance(offer, str):
            return Trial(rollout, None, offer)
        try:
            return Trial(rollout, await self._slot.pin(offer), None)
        except ModelRefused as error:
            return Trial(rollout, None, error.message)
