"""Moving the alias `champion`: a row in the promotions first, then the alias that follows it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from raysys.errors import Conflict, NotFound
from raysys.records import Promotion
from raysys.registry import Registry
from raysys.store import promotions

CHAMPION = "champion"
EVERYTHING = 1_000_000  # moves of one family; a year of hourly promotions has 8760


def promote(
    engine: sa.Engine,
    registry: Registry,
    *,
    family: str,
    version: str,
    actor: str,
    reason: str,
    id: str,
    report: dict[str, Any],
    now: datetime,
) -> Promotion:
    """Make `version` the champion; with an `id` that was there before, only finish that move.

    Raises NotFound for a version that does not exist, and Conflict for one that is the champion.
    """
    known = _moved(engine, registry, family, id)
    if known is not None:
        return known
    registry.version(family, version)
    champion = registry.champion(family)
    if champion is not None and champion.version == version:
        raise Conflict(f"{family} {version} is the champion already.", family=family)
    promotion = Promotion(
        id=id,
        family=family,
        alias=CHAMPION,
        action="promote",
        to_version=version,
        from_version=None if champion is None else champion.version,
        actor=actor,
        reason=reason,
        at=now,
        report=report,
    )
    return _move(engine, registry, promotion)


def rollback(
    engine: sa.Engine,
    registry: Registry,
    *,
    family: str,
    actor: str,
    reason: str,
    id: str,
    now: datetime,
) -> Promotion:
    """Make the champion's predecessor the champion; one that was rolled back is no predecessor.

    Raises Conflict where there is no champion or nothing to go back to.
    """
    known = _moved(engine, registry, family, id)
    if known is not None:
        return known
    champion = registry.champion(family)
    if champion is None:
        raise Conflict(f"{family} has no champion to roll back.", family=family)
    promotion = Promotion(
        id=id,
        family=family,
        alias=CHAMPION,
        action="rollback",
        to_version=_predecessor(engine, registry, family, champion.version),
        from_version=champion.version,
        actor=actor,
        reason=reason,
        at=now,
    )
    return _move(engine, registry, promotion)


def line(moves: Iterable[Promotion]) -> list[str]:
    """Return the champions that were not rolled back, oldest first, from moves newest first."""
    versions: list[str] = []
    for move in reversed(list(moves)):
        if move.action == "rollback":
            while versions and versions[-1] != move.to_version:
                versions.pop()
        if not versions or versions[-1] != move.to_version:
            versions.append(move.to_version)
    return versions


def _predecessor(engine: sa.Engine, registry: Registry, family: str, version: str) -> str:
    for earlier in reversed(line(_history(engine, family))):
        if earlier != version and _exists(registry, family, earlier):
            return earlier
    raise Conflict(
        f"{family} {version} has no earlier champion to go back to; `raysys models list {family}`"
        " shows the versions that could be promoted.",
        family=family,
        version=version,
    )


def _exists(registry: Registry, family: str, version: str) -> bool:
    try:
        registry.version(family, version)
    except NotFound:
        return False
    return True


def find(engine: sa.Engine, family: str, id: str) -> Promotion | None:
    """Return the move of this id, or None."""
    return next((move for move in _history(engine, family) if move.id == id), None)


def _moved(engine: sa.Engine, registry: Registry, family: str, id: str) -> Promotion | None:
    known = find(engine, family, id)
    if known is not None:
        _follow(engine, registry, family)
    return known


def _move(engine: sa.Engine, registry: Registry, promotion: Promotion) -> Promotion:
    promotions.append(engine, promotion)
    _follow(engine, registry, promotion.family)
    return promotion


def _follow(engine: sa.Engine, registry: Registry, family: str) -> None:
    # To the newest row, not to this caller's: of two callers at once, or of a repeated step whose
    # row was superseded, the alias must end where the last row says.
    newest = _history(engine, family)[0]
    registry.set_alias(family, newest.alias, newest.to_version)


def _history(engine: sa.Engine, family: str) -> list[Promotion]:
    moves = promotions.history(engine, family, limit=EVERYTHING)
    return [move for move in moves if move.alias == CHAMPION]
