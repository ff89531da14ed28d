"""Doing what a policy decided, and nothing twice: a training that is started, a champion that is taken back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from raysys.pipelines import promote
from raysys.pipelines.standing import Where
from raysys.records import Act

ACTOR = "policy"


def carry_out(where: Where, act: Act, start_training: Callable[[], str], *, now: datetime) -> str:
    """Do what `act` says and return it in words; harmless to repeat when `start_training` is.

    A rollback is left when another version is champion by now.
    """
    if act.dry_run:
        return f"{act.action}, as a dry run: nothing is done"
    if act.action == "retrain":
        return f"training {start_training()} is started"
    if act.action == "rollback":
        return _roll_back(where, act, now)
    return "told"


def _roll_back(where: Where, act: Act, now: datetime) -> str:
    id = f"{act.id}-rollback"
    champion = where.registry.champion(act.family)
    judged = act.evidence.get("version")
    done = promote.find(where.engine, act.family, id)
    if done is None and (champion is None or champion.version != judged):
        return f"version {judged} is the champion no more: nothing is done"
    move = promote.rollback(
        where.engine,
        where.registry,
        family=act.family,
        actor=ACTOR,
        reason=act.reason,
        id=id,
        now=now,
    )
    return f"version {move.to_version} is champion again"
