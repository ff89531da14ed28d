"""A replica that follows the champion, whatever fails around it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from raysys.errors import NotFound, Unavailable
from raysys.serving import follower as module
from raysys.serving.follower import Follower
from raysys.serving.offers import LastGood
from raysys.serving.slot import Slot
from tests.unit.serving.tiny import HandOffers, Waves, offer, scaled

FAMILY = Waves()
ONE, TWO = (offer(FAMILY, version, scaled(4, float(version))) for version in ("1", "2"))
BROKEN = offer(FAMILY, "3", b"broken")
Scene = Callable[[Follower, HandOffers], Awaitable[None]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)


def play(scene: Scene, folder: Path, champion: object = ONE, down: bool = False) -> None:
    """Start a follower, run its loop beside `scene`, and end it."""

    async def run() -> None:
        offers = HandOffers(champion)  # type: ignore[arg-type]
        offers.down = down
        follower = Follower("r1", Slot(FAMILY), offers, LastGood(folder))
        await follower.start(5)
        loop = asyncio.create_task(follower.run())
        try:
            await asyncio.wait_for(scene(follower, offers), 10)
        finally:
            loop.cancel()

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def serves(follower: Follower) -> str | None:
    return follower.slot.current.version if follower.slot.current else None


def test_a_new_champion_is_served_and_told(tmp_path: Path) -> None:
    async def scene(follower: Follower, offers: HandOffers) -> None:
        assert serves(follower) == "1"
        offers.offer(TWO)
        await until(lambda: serves(follower) == "2")
        await until(lambda: offers.states[-1].version == "2")
        assert offers.states[-1].refused is None

    play(scene, tmp_path)


def test_a_broken_champion_leaves_the_old_one_and_is_told(tmp_path: Path) -> None:
    async def scene(follower: Follower, offers: HandOffers) -> None:
        offers.offer(BROKEN)
        await until(lambda: bool(offers.states[-1].refused))
        assert (serves(follower), offers.states[-1].version) == ("1", "1")
        offers.offer(TWO)
        await until(lambda: serves(follower) == "2")

    play(scene, tmp_path)


def test_it_serves_on_while_the_watcher_is_down_and_follows_again(tmp_path: Path) -> None:
    async def scene(follower: Follower, offers: HandOffers) -> None:
        offers.down = True
        offers.offer(TWO)
        await until(lambda: not follower.reachable)
        assert serves(follower) == "1"
        offers.down = False
        await until(lambda: serves(follower) == "2")

    play(scene, tmp_path)


def test_a_start_without_the_watcher_takes_the_last_good_version(tmp_path: Path) -> None:
    LastGood(tmp_path).keep(TWO)

    async def scene(follower: Follower, offers: HandOffers) -> None:
        assert serves(follower) == "2"
        offers.down = False
        await until(lambda: serves(follower) == "1")

    play(scene, tmp_path, down=True)


def test_a_start_without_any_model_waits_for_the_first(tmp_path: Path) -> None:
    async def scene(follower: Follower, offers: HandOffers) -> None:
        assert serves(follower) is None
        offers.offer(ONE)
        await until(lambda: serves(follower) == "1")

    play(scene, tmp_path, champion=None)


def test_only_a_version_that_serves_becomes_the_last_good_one(tmp_path: Path) -> None:
    async def scene(follower: Follower, offers: HandOffers) -> None:
        offers.offer(BROKEN)
        await until(lambda: bool(offers.states[-1].refused))

    play(scene, tmp_path)
    kept = LastGood(tmp_path).recall("waves")
    assert kept is not None
    assert kept.version == "1"


def test_a_named_version_is_loaded_beside_the_champion(tmp_path: Path) -> None:
    async def scene(follower: Follower, offers: HandOffers) -> None:
        offers.versions["2"] = TWO
        assert (await follower.version("2")).version == "2"
        assert serves(follower) == "1"
        for unknown in ("9", "x", "\u0663"):
            with pytest.raises(NotFound):
                await follower.version(unknown)
        offers.down = True
        assert (await follower.version("2")).version == "2"
        with pytest.raises(Unavailable):
            await follower.version("9")

    play(scene, tmp_path)
