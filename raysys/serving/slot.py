"""Where one family's model stands in a replica: swapped by one reference; nothing is fetched."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from raysys import log, metrics
from raysys.errors import ModelRefused
from raysys.families.base import Family
from raysys.serving.loader import LoadedModel, load
from raysys.serving.offers import Offer

PINNED = 2  # versions other than the champion that stay loaded for callers who name them


class Slot:
    """The model that serves, and what is known of others.

    A request takes `current` once and keeps that reference until it has answered: a swap disturbs
    none of those under way, and the old session is freed when the last of them ends.
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        self.current: LoadedModel | None = None
        self.refused: dict[str, str] = {}
        self.swaps = 0
        self._pinned: OrderedDict[str, LoadedModel] = OrderedDict()
        self._loading = asyncio.Lock()

    async def offer(self, offer: Offer) -> bool:
        """Serve the offered version if it is good; tell whether it serves now.

        A version that was refused is not tried again: its bytes cannot change.
        """
        async with self._loading:
            if self.current and self.current.version == offer.version:
                return True
            if offer.version in self.refused:
                return False
            try:
                model = self._pinned.pop(offer.version, None)
                model = model or await self._load_or_remember(offer)
            except ModelRefused:
                return False
            self._swap(model)
            return True

    async def pin(self, offer: Offer) -> LoadedModel:
        """Return the offered version beside the current one; raises ModelRefused."""
        async with self._loading:
            model = self.find(offer.version)
            if model is None:
                if offer.version in self.refused:
                    raise ModelRefused(self.refused[offer.version])
                model = await self._load_or_remember(offer)
                self._pinned[offer.version] = model
                while len(self._pinned) > PINNED:
                    self._pinned.popitem(last=False)
            return model

    def find(self, version: str) -> LoadedModel | None:
        """Return a version if it is loaded."""
        if self.current and self.current.version == version:
            return self.current
        model = self._pinned.get(version)
        if model is not None:
            self._pinned.move_to_end(version)
        return model

    async def _load_or_remember(self, offer: Offer) -> LoadedModel:
        family = self.family.name
        began = time.monotonic()
        try:
            model = await asyncio.to_thread(
                load, self.family, offer.version, offer.sha256, offer.data
            )
        except ModelRefused as error:
            self.refused[offer.version] = error.message
            reason = str(error.fields.get("why", "other"))
            metrics.add("refusals", family=family, reason=reason)
            metrics.add("model_loads", family=family, outcome="refused")
            log.get("serving").error(
                "model refused", family=offer.family, version=offer.version, reason=error.message
            )
            raise
        metrics.observe("model_load_seconds", time.monotonic() - began, family=family)
        metrics.add("model_loads", family=family, outcome="loaded")
        return model

    def _swap(self, model: LoadedModel) -> None:
        before, self.current = self.current, model
        self.swaps += 1
        metrics.add("model_swaps", family=model.family)
        log.get("serving").info(
            "model swapped",
            family=model.family,
            version=model.version,
            before=before.version if before else None,
        )
