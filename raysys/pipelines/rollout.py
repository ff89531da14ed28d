"""Trying a challenger on live traffic: begun and ended by rows of the promotions, then by the alias that follows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from raysys import families
from raysys.errors import Conflict
from raysys.pipelines import promote as moves
from raysys.pipelines import quality
from raysys.records import Promotion, plain
from raysys.registry import ROLLOUT_TAG, Registry
from raysys.serving.rollout import Decision, Live, Rollout, Rule, Tried, judge
from raysys.store import promotions

CHALLENGER = "challenger"
ACTOR = "canary"


def begin(
    engine: sa.Engine, registry: Registry, *, family: str, rollout: Rollout, now: datetime
) -> str:
    """Let `rollout.version` be tried beside the champion, whose version is returned; harmless to repeat.

    Raises NotFound for a version that does not exist, and Conflict where there is no champion, the
    version is it, or another challenger is being tried.
    """
    registry.version(family, rollout.version)
    aliases = registry.aliases().get(family, {})
    champion, other = aliases.get(moves.CHAMPION), aliases.get(CHALLENGER)
    if champion is None or champion == rollout.version:
        why = "is the champion already" if champion else "has no champion to stand beside"
        raise Conflict(f"{family} {rollout.version} {why}: promote instead.", family=family)
    if other not in (None, rollout.version):
        raise Conflict(f"{family} {other} is being tried: wait, or cancel that run.", family=family)
    reason = f"tried with {rollout.percent:g} % of the answers and {rollout.shadow:g} % in shadow"
    begun = Promotion(
        id=f"{rollout.id}-begin",
        family=family,
        alias=CHALLENGER,
        action="canary",
        to_version=rollout.version,
        from_version=None,
        actor=ACTOR,
        reason=reason,
        at=now,
    )
    promotions.append(engine, begun)
    registry.set_family_tag(family, ROLLOUT_TAG, msgspec.json.encode(rollout).decode())
    registry.set_alias(family, CHALLENGER, rollout.version)
    return champion


def decide(
    registry: Registry,
    *,
    family: str,
    rollout: Rollout,
    champion: str,
    tried: Tried | None,
    over: bool,
    live: Live | None = None,
) -> Decision:
    """Return what follows now: a trial that somebody else has overtaken is withdrawn."""
    aliases = registry.aliases().get(family, {})
    if aliases.get(CHALLENGER) != rollout.version or aliases.get(moves.CHAMPION) != champion:
        return Decision(action="withdraw", reason="an alias was moved by somebody else meanwhile")
    rule = Rule(most_error=families.get(family).gate.margin)
    return judge(tried or Tried(), rollout, rule, over=over, live=live)


def live_error(
    engine: sa.Engine,
    registry: Registry,
    *,
    family: str,
    rollout: Rollout,
    champion: str,
    since: datetime,
    now: datetime,
) -> Live | None:
    """Return the challenger's error since the trial began beside the champion's; None before there is truth."""
    kind = families.get(family)
    span: Any = {"version": rollout.version, "since": since, "until": now, "step": now - since}
    if not any(found.values for found in quality.windows(engine, kind, **span)):
        return None
    onnx = registry.fetch(registry.version(family, champion))
    (found,) = quality.windows(engine, kind, **span, baseline=quality.predictor(kind, onnx))
    if found.error is None or found.baseline_error is None:
        return None
    return Live(
        metric=kind.metric,
        error=found.error,
        champion_error=found.baseline_error,
        values=found.values,
    )


def end(
    engine: sa.Engine,
    registry: Registry,
    *,
    family: str,
    rollout: Rollout,
    champion: str,
    decision: Decision,
    tried: Tried | None,
    now: datetime,
) -> None:
    """Promote the challenger or take it back, with the reason in the history; harmless to repeat."""
    report = {"rollout": plain(rollout), "tried": plain(tried)}
    if decision.action == "promote":
        moves.promote(
            engine,
            registry,
            family=family,
            version=rollout.version,
            actor=ACTOR,
            reason=decision.reason,
            id=f"{rollout.id}-promote",
            report=report,
            now=now,
        )
    else:
        taken_back = Promotion(
            id=f"{rollout.id}-rollback",
            family=family,
            alias=CHALLENGER,
            action="rollback",
            to_version=champion,
            from_version=rollout.version,
            actor=ACTOR,
            reason=decision.reason,
            at=now,
            report=report,
        )
        promotions.append(engine, taken_back)
    if registry.aliases().get(family, {}).get(CHALLENGER) == rollout.version:
        registry.delete_alias(family, CHALLENGER)
