"""The durable canary: a challenger gets a share of the traffic, and is promoted or taken back by what it does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from raysys import durable, families
from raysys.errors import Unavailable
from raysys.pipelines import rollout as pipeline
from raysys.records import Record, plain
from raysys.runtime import Runtime
from raysys.serving.rollout import Decision, Live, Rollout, Tried

LOOKS = 40  # at what was counted, spread over the bake time
LEAST_PAUSE_SECONDS = 2.0
MOST_PAUSE_SECONDS = 30.0


class Begun(Record, frozen=True):
    """A trial that is under way: what it asks, who is champion, when it began and when the bake time is over."""

    rollout: Rollout
    champion: str
    until: datetime
    since: datetime | None = None


class CanaryReport(Record, frozen=True):
    """How a trial ended."""

    family: str
    version: str
    champion: str
    promoted: bool
    reason: str


@durable.workflow(name="canary")
def canary(
    family: str, version: str, percent: float = 10, shadow: float = 0, bake_seconds: float = 600
) -> dict[str, Any]:
    """Try `version` beside the champion for the bake time; promote it, or take it back as soon as it does badly.

    `percent` of the answers are its own, and it sees `shadow` percent of the champion's requests
    without answering. With no share of the answers it is only compared, and never promoted.
    Returns a CanaryReport.
    """
    begun = begin(family, version, percent, shadow, bake_seconds)
    pause = min(MOST_PAUSE_SECONDS, max(LEAST_PAUSE_SECONDS, bake_seconds / LOOKS))
    decision = look(family, begun)
    while decision.action == "wait":
        durable.sleep(pause)
        decision = look(family, begun)
    end(family, begun, decision)
    report = CanaryReport(
        family=family,
        version=version,
        champion=begun.champion,
        promoted=decision.action == "promote",
        reason=decision.reason,
    )
    return dict(plain(report))


@durable.step()
def begin(family: str, version: str, percent: float, shadow: float, bake_seconds: float) -> Begun:
    """Move the alias `challenger`."""
    rollout = Rollout(id=durable.workflow_id(), version=version, percent=percent, shadow=shadow)
    now = datetime.now(UTC)
    with Runtime() as runtime:
        champion = pipeline.begin(
            runtime.engine, runtime.registry, family=family, rollout=rollout, now=now
        )
    durable.notify(f"version {version} is tried beside {champion}", version=version)
    until = now + timedelta(seconds=bake_seconds)
    return Begun(rollout=rollout, champion=champion, until=until, since=now)


@durable.step()
def look(family: str, begun: Begun) -> Decision:
    """Ask the watcher what the replicas counted, and the tables what is true by now; judge both."""
    tried = _tried(family, begun)
    now = datetime.now(UTC)
    with Runtime() as runtime:
        decision = pipeline.decide(
            runtime.registry,
            family=family,
            rollout=begun.rollout,
            champion=begun.champion,
            tried=tried,
            over=now >= begun.until,
            live=_live(runtime, family, begun, now),
        )
    durable.notify(f"{decision.action}: {decision.reason}")
    return decision


@durable.step()
def end(family: str, begun: Begun, decision: Decision) -> None:
    """Do what was decided."""
    with Runtime() as runtime:
        pipeline.end(
            runtime.engine,
            runtime.registry,
            family=family,
            rollout=begun.rollout,
            champion=begun.champion,
            decision=decision,
            tried=_tried(family, begun),
            now=datetime.now(UTC),
        )


def _live(runtime: Runtime, family: str, begun: Begun, now: datetime) -> Live | None:
    from raysys.pipelines import truth

    if begun.since is None or not begun.rollout.percent:
        return None
    truth.join(runtime.engine, families.get(family), runtime.settings, now=now)
    return pipeline.live_error(
        runtime.engine,
        runtime.registry,
        family=family,
        rollout=begun.rollout,
        champion=begun.champion,
        since=begun.since,
        now=now,
    )


def _tried(family: str, begun: Begun) -> Tried | None:
    from raysys.serving.watcher import ensure_watcher

    try:
        found: Tried | None = ensure_watcher().call("tried", family, begun.rollout.id)
    except Unavailable:  # it comes back, and every replica tells it anew what it counted
        return None
    return found
