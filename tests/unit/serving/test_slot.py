"""The swap of models in one place."""

from __future__ import annotations

import asyncio
import gc
import weakref

import numpy as np
import pytest

from raysys.errors import ModelRefused
from raysys.serving.slot import PINNED, Slot
from tests.unit.serving.tiny import Waves, offer, scaled

FAMILY = Waves()
ONE, TWO = (offer(FAMILY, version, scaled(4, float(version))) for version in ("1", "2"))
BROKEN = offer(FAMILY, "3", b"broken")


def test_a_good_offer_serves_and_the_model_before_is_freed() -> None:
    async def swap() -> None:
        slot = Slot(FAMILY)
        assert await slot.offer(ONE)
        under_way = slot.current
        assert under_way is not None
        before = weakref.ref(under_way)
        assert await slot.offer(TWO)
        assert slot.current is not None and slot.current.version == "2"
        assert under_way.run(np.ones((1, 4), np.float32))[0, 0] == 1.0
        del under_way
        gc.collect()
        assert before() is None

    asyncio.run(swap())


def test_failed_reload_keeps_old_model() -> None:
    async def swap() -> None:
        slot = Slot(FAMILY)
        await slot.offer(ONE)
        assert not await slot.offer(BROKEN)
        assert slot.current is not None and slot.current.version == "1"
        assert "ONNX Runtime cannot load it" in slot.refused["3"]

    asyncio.run(swap())


def test_a_refused_version_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    async def swap() -> None:
        slot = Slot(FAMILY)
        await slot.offer(BROKEN)
        monkeypatch.setattr("raysys.serving.slot.load", lambda *args: tried.append(args[1]))
        assert not await slot.offer(BROKEN)
        with pytest.raises(ModelRefused):
            await slot.pin(BROKEN)

    asyncio.run(swap())
    assert tried == []


def test_the_version_that_serves_is_not_loaded_again() -> None:
    async def swap() -> None:
        slot = Slot(FAMILY)
        await slot.offer(ONE)
        first = slot.current
        assert await slot.offer(ONE)
        assert slot.current is first
        assert slot.swaps == 1

    asyncio.run(swap())


def test_pinned_versions_stay_beside_and_the_oldest_goes() -> None:
    async def pin() -> None:
        slot = Slot(FAMILY)
        await slot.offer(ONE)
        for version in range(2, 4 + PINNED):
            await slot.pin(offer(FAMILY, str(version), scaled(4, float(version))))
        assert slot.current is not None and slot.current.version == "1"
        assert slot.find("2") is None
        assert slot.find("3") is None
        assert slot.find(str(3 + PINNED)) is not None
        assert slot.find("1") is slot.current

    asyncio.run(pin())


def test_a_pinned_version_that_becomes_champion_is_not_loaded_again() -> None:
    async def pin() -> None:
        slot = Slot(FAMILY)
        pinned = await slot.pin(TWO)
        await slot.offer(TWO)
        assert slot.current is pinned

    asyncio.run(pin())
