"""The durable loop of quality: join the truth, score, look for drift, decide, act; what the rules are is not here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from raysys import durable, families, metrics
from raysys.pipelines.policy import State
from raysys.records import Act, Drift, JoinReport, Level, Record, plain
from raysys.runtime import Runtime
from raysys.store import decisions
from workflows import schedules

ACTIONS = ("retrain", "rollback", "alert", "recover")


class Scored(Record, frozen=True):
    """How the champion does, None where there is none, and what is exported of it."""

    state: State | None = None
    levels: list[Level] = []


class Drifted(Record, frozen=True):
    """How far each feature drifted."""

    drifts: list[Drift] = []


class Decided(Record, frozen=True):
    """What was decided, or None for nothing."""

    act: Act | None = None


class QualityRun(Record, frozen=True):
    """What a run of the loop found and did."""

    family: str
    joined: JoinReport
    version: str | None
    drifts: list[Drift] = []
    act: Act | None = None
    done: str = ""


@durable.workflow(name="quality")
def quality(family: str) -> dict[str, Any]:
    """Join predictions with what came of them, measure the champion, and do what the family's policy decides.

    Returns a QualityRun.
    """
    joined = join(family)
    scored = score(family)
    drifted = look_for_drift(family) if scored.state else Drifted()
    show(family, joined, scored.levels, drifted)
    act = decide(family, scored.state, drifted).act if scored.state else None
    run = QualityRun(
        family=family,
        joined=joined,
        version=scored.state.version if scored.state else None,
        drifts=drifted.drifts,
        act=act,
        done=carry_out(act) if act else "",
    )
    return dict(plain(run))


@durable.step(where="ray", num_cpus=0)
def join(family: str) -> JoinReport:
    """Bring the truth there is to the predictions."""
    from raysys.pipelines import truth

    with Runtime() as runtime:
        kind = families.get(family)
        found = truth.join(runtime.engine, kind, runtime.settings, now=_now())
    durable.notify(f"{found.added} truths are new, {found.completed} predictions have theirs whole")
    return found


@durable.step(where="ray", num_cpus=0)
def score(family: str) -> Scored:
    """Measure every version on live traffic, the champion beside its predecessor too."""
    from raysys.pipelines import standing

    with Runtime() as runtime:
        where, now = _where(runtime, family), _now()
        report = standing.report(where, now=now)
        state = standing.score(where, report, now=now)
        levels = standing.levels(state, report, where.policy) if state else []
    told = {level.name: round(level.value, 4) for level in levels}
    durable.notify(f"version {state.version}" if state else "nothing serves", levels=told)
    return Scored(state=state, levels=levels)


@durable.step(where="ray", num_cpus=0)
def look_for_drift(family: str) -> Drifted:
    """Compare what came in and went out lately with the rows that the champion was trained on."""
    from raysys.pipelines import standing

    with Runtime() as runtime:
        drifts = standing.drift(_where(runtime, family), now=_now())
    far = {each.feature: round(each.score, 3) for each in drifts if each.score is not None}
    worst = max(far, key=far.__getitem__, default=None)
    text = f"{worst} is at {far[worst]:g} times its threshold" if worst else "nothing to compare"
    durable.notify(text, scores=far)
    return Drifted(drifts=drifts)


# In the worker, as what a Ray task exports is gone with its process.
@durable.step()
def show(family: str, joined: JoinReport, levels: list[Level], drifted: Drifted) -> None:
    """Set the metrics."""
    from raysys.pipelines import standing

    for name in JoinReport.__struct_fields__:
        if name != "family":
            metrics.level("truths", getattr(joined, name), family=family, outcome=name)
    for level in [*levels, *standing.drift_levels(family, drifted.drifts)]:
        metrics.level(level.name, level.value, **level.labels)
    for action in ACTIONS:
        metrics.announce("decisions", family=family, action=action)


@durable.step()
def decide(family: str, state: State, drifted: Drifted) -> Decided:
    """Ask the policy, and record what it says; a repetition finds what was recorded."""
    from raysys.pipelines import policy

    id = f"{durable.workflow_id()}-decision"
    with Runtime() as runtime:
        act = decisions.find(runtime.engine, id) or policy.decide(
            replace(
                state,
                drifts=drifted.drifts,
                nothing_new=schedules.nothing_new(family),
                trained_at=schedules.trained_at(runtime, family),
            ),
            runtime.settings.policy_of(family),
            decisions.history(runtime.engine, family, limit=500),
            id=id,
            now=_now(),
            workflow_id=durable.workflow_id(),
        )
        if act is None:
            return Decided()
        act = decisions.append(runtime.engine, act)
    metrics.add("decisions", family=family, action=act.action)
    durable.notify(f"{act.action}: {act.reason}", action=act.action, dry_run=act.dry_run)
    return Decided(act=act)


@durable.step()
def carry_out(act: Act) -> str:
    """Do what was decided, once."""
    from raysys.pipelines import acting

    with Runtime() as runtime:

        def start_training() -> str:
            # One of the schedule that waits or runs is the same training: it reads the same rows.
            return runtime.durable.start(
                "train",
                act.family,
                runtime.settings.policy_of(act.family).trials,
                workflow_id=f"{act.id}-train",
                dedup=schedules.training_key(act.family),
            )

        done = acting.carry_out(_where(runtime, act.family), act, start_training, now=_now())
    durable.notify(done)
    return done


def _where(runtime: Runtime, family: str) -> Any:
    from raysys.pipelines import standing

    return standing.Where(
        runtime.engine,
        runtime.artifacts,
        runtime.registry,
        families.get(family),
        runtime.settings,
    )


def _now() -> datetime:
    return datetime.now(UTC)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the loop of one family once, tell its progress line by line, and return 0 when it succeeded, else 1."""
    import argparse

    from workflows.console import run_to_end

    parser = argparse.ArgumentParser(prog="python -m workflows.quality", description=main.__doc__)
    parser.add_argument("family", help="the family to judge")
    return run_to_end("quality", parser.parse_args(arguments).family)


if __name__ == "__main__":
    raise SystemExit(main())
