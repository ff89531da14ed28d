"""Promotion and rollback: the row comes first, and the alias follows the newest row."""

from __future__ import annotations

import datetime as dt

import pytest
import sqlalchemy as sa

from raysys.errors import Conflict, NotFound, Unavailable
from raysys.pipelines import promote as pipeline
from raysys.records import ModelVersion, Promotion
from raysys.store import promotions


class Memory:
    """A registry in memory with the versions 1 to 5; it can be down for setting an alias."""

    def __init__(self) -> None:
        self.existing = {str(number) for number in range(1, 6)}
        self.alias: str | None = None
        self.down = False

    def version(self, family: str, version: str) -> ModelVersion:
        if version not in self.existing:
            raise NotFound(f"{family} has no version {version}")
        return ModelVersion(family=family, version=version, run_id="", sha256="", model_uri="")

    def champion(self, family: str) -> ModelVersion | None:
        return None if self.alias is None else self.version(family, self.alias)

    def set_alias(self, family: str, alias: str, version: str) -> None:
        if self.down:
            raise Unavailable("MLflow does not answer")
        assert alias == "champion"
        self.alias = version


@pytest.fixture
def registry() -> Memory:
    return Memory()


class Mover:
    """Moves the champion of insurance, under ids that are counted."""

    def __init__(self, engine: sa.Engine, registry: Memory, now: dt.datetime) -> None:
        self.engine, self.registry, self.now, self.moves = engine, registry, now, 0

    def promote(self, version: str, id: str | None = None) -> Promotion:
        return pipeline.promote(
            self.engine,
            self.registry,  # type: ignore[arg-type]
            family="insurance",
            version=version,
            actor="test",
            reason="because",
            id=id or self._next(),
            report={"mae": 1.5},
            now=self.now,
        )

    def rollback(self, id: str | None = None) -> Promotion:
        return pipeline.rollback(
            self.engine,
            self.registry,  # type: ignore[arg-type]
            family="insurance",
            actor="test",
            reason="because",
            id=id or self._next(),
            now=self.now,
        )

    def history(self) -> list[str]:
        moves = promotions.history(self.engine, "insurance")
        return [f"{move.action} {move.from_version}->{move.to_version}" for move in moves]

    def _next(self) -> str:
        self.moves += 1
        return f"move-{self.moves}"


@pytest.fixture
def mover(engine: sa.Engine, registry: Memory, now: dt.datetime) -> Mover:
    return Mover(engine, registry, now)


def test_promotion_moves_the_alias_and_is_recorded(mover: Mover, registry: Memory) -> None:
    mover.promote("1")
    moved = mover.promote("2")
    assert registry.alias == "2"
    assert (moved.from_version, moved.to_version, moved.report) == ("1", "2", {"mae": 1.5})
    assert mover.history() == ["promote 1->2", "promote None->1"]


def test_repeated_promotion_changes_nothing(mover: Mover, registry: Memory) -> None:
    first = mover.promote("1", id="a")
    assert mover.promote("1", id="a") == first
    assert mover.history() == ["promote None->1"]


def test_repeated_promotion_does_not_undo_a_later_one(mover: Mover, registry: Memory) -> None:
    mover.promote("1", id="a")
    mover.promote("2")
    mover.promote("1", id="a")
    assert registry.alias == "2"


def test_promotion_cut_off_before_the_alias_is_finished_by_its_repeat(
    mover: Mover, registry: Memory
) -> None:
    registry.down = True
    with pytest.raises(Unavailable):
        mover.promote("1", id="a")
    registry.down = False
    mover.promote("1", id="a")
    assert registry.alias == "1"
    assert mover.history() == ["promote None->1"]


def test_unknown_version_leaves_no_row(mover: Mover) -> None:
    with pytest.raises(NotFound):
        mover.promote("9")
    assert mover.history() == []


def test_champion_cannot_be_promoted_again(mover: Mover) -> None:
    mover.promote("1")
    with pytest.raises(Conflict, match="already"):
        mover.promote("1")


def test_rollback_goes_to_the_version_before(mover: Mover, registry: Memory) -> None:
    mover.promote("1")
    mover.promote("2")
    moved = mover.rollback()
    assert registry.alias == "1"
    assert (moved.action, moved.from_version, moved.to_version) == ("rollback", "2", "1")


def test_second_rollback_skips_what_was_rolled_back(mover: Mover, registry: Memory) -> None:
    for version in "123":
        mover.promote(version)
    mover.rollback()
    mover.rollback()
    assert registry.alias == "1"
    mover.promote("4")
    mover.rollback()
    assert registry.alias == "1"


def test_version_promoted_again_after_its_rollback_counts(mover: Mover, registry: Memory) -> None:
    mover.promote("1")
    mover.promote("2")
    mover.rollback()
    mover.promote("2")
    mover.promote("3")
    mover.rollback()
    assert registry.alias == "2"


def test_rollback_passes_over_a_deleted_version(mover: Mover, registry: Memory) -> None:
    for version in "123":
        mover.promote(version)
    registry.existing.discard("2")
    mover.rollback()
    assert registry.alias == "1"


def test_rollback_after_a_move_by_hand_goes_to_the_last_known(
    mover: Mover, registry: Memory
) -> None:
    mover.promote("1")
    registry.alias = "5"
    mover.rollback()
    assert registry.alias == "1"


def test_repeated_rollback_goes_back_once(mover: Mover, registry: Memory) -> None:
    for version in "123":
        mover.promote(version)
    mover.rollback(id="a")
    mover.rollback(id="a")
    assert registry.alias == "2"


@pytest.mark.parametrize("promoted", [[], ["1"]])
def test_rollback_without_a_predecessor_is_a_conflict(mover: Mover, promoted: list[str]) -> None:
    for version in promoted:
        mover.promote(version)
    with pytest.raises(Conflict):
        mover.rollback()
