"""A challenger beside the champion in one replica."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysys.serving import trial as module
from raysys.serving.loader import load
from raysys.serving.rollout import Rollout
from raysys.serving.slot import Slot
from raysys.serving.trial import Trial, TrialFollower
from tests.unit.serving.tiny import HandOffers, Waves, offer, scaled

FAMILY = Waves()
ONE, TWO = (offer(FAMILY, version, scaled(4, float(version))) for version in ("1", "2"))
BROKEN = offer(FAMILY, "3", b"broken")
ROWS = np.ones((1, 4), np.float32)


def loaded(of: Any) -> Any:
    return load(FAMILY, of.version, of.sha256, of.data)


class Failing:
    """A challenger that came through its warm-up and fails afterwards."""

    version = "2"

    def __init__(self, output: Any = None) -> None:
        self._output = output

    def run(self, rows: Any) -> Any:
        if self._output is None:
            raise RuntimeError("it broke")
        return self._output


def share(percent: float, keys: list[bytes | None]) -> Counter[str]:
    trial = Trial(Rollout(id="t", version="2", percent=percent), loaded(TWO), None)
    champion = loaded(ONE)
    return Counter(trial.run(champion, ROWS, key)[0].version for key in keys)


def test_ten_percent_are_ten_percent() -> None:
    for keys in ([None] * 5000, [b"caller %d" % n for n in range(5000)]):
        assert 0.08 <= share(10, keys)["2"] / 5000 <= 0.12


def test_a_caller_with_a_key_stays_with_its_model() -> None:
    for n in range(50):
        assert len(share(50, [b"caller %d" % n] * 20)) == 1


@pytest.mark.parametrize("output", [None, np.full((1, 4), np.nan, np.float32)])
def test_the_champion_answers_where_the_challenger_fails(output: Any) -> None:
    trial = Trial(Rollout(id="t", version="2", percent=100), Failing(output), None)  # type: ignore[arg-type]
    model, answer = trial.run(loaded(ONE), ROWS, None)
    assert (model.version, answer.tolist()) == ("1", ROWS.tolist())
    assert (trial.tried().requests, trial.tried().failures) == (1, 1)


def test_a_shadow_is_compared_and_never_answers() -> None:
    trial = Trial(Rollout(id="t", version="2", shadow=100), loaded(TWO), None)
    champion = loaded(ONE)
    assert {trial.run(champion, ROWS, None)[0].version for _ in range(20)} == {"1"}
    assert trial.tried().compared == 0
    trial.shadow()
    assert (trial.tried().compared, trial.tried().difference_most) == (20, 1.0)


def test_what_waits_for_its_shadow_is_bounded() -> None:
    trial = Trial(Rollout(id="t", version="2", shadow=100), loaded(TWO), None)
    champion = loaded(ONE)
    for _ in range(1000):
        trial.run(champion, ROWS, None)
    trial.shadow()
    assert trial.tried().compared == module.SHADOW_WAITING


def test_a_replica_follows_a_rollout_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.001)

    async def scene() -> None:
        offers = HandOffers(ONE)
        offers.versions.update({"2": TWO, "3": BROKEN})
        slot = Slot(FAMILY)
        await slot.offer(ONE)
        follower = TrialFollower("r1", slot, offers)
        loop = asyncio.create_task(follower.run())

        async def until(condition: Any) -> None:
            while not condition():
                await asyncio.sleep(0.001)

        offers.rollout = Rollout(id="t1", version="2", percent=100)
        await until(lambda: follower.current is not None)
        assert follower.current and slot.current
        follower.current.run(slot.current, ROWS, None)
        await until(lambda: offers.tried is not None and offers.tried.requests == 1)
        offers.rollout = Rollout(id="t2", version="3", percent=100)
        await until(lambda: offers.tried is not None and offers.tried.refused)
        offers.rollout = None
        await until(lambda: follower.current is None)
        loop.cancel()

    asyncio.run(asyncio.wait_for(scene(), 10))


def test_a_promoted_challenger_is_not_loaded_again(tmp_path: Path) -> None:
    async def scene() -> None:
        slot = Slot(FAMILY)
        await slot.offer(ONE)
        tried = await slot.pin(TWO)
        await slot.offer(TWO)
        assert slot.current is tried

    asyncio.run(scene())
