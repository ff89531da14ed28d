"""What follows from how a version does: a training, a rollback, a word, or nothing. Pure: no clock, no database.

A cause that was acted on is open until it is over. While it is open it starts nothing more, unless
patience runs out: a drift that lasts does not train a model every day.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from raysys.records import Act, Drift, Promotion, QualityWindow, Record, plain
from raysys.settings import Policy

Cause = Literal["error", "drift", "age", "rows", "spike", "jump", "answers"]

TWICE = 2.0  # of the predecessor's error: no need to wait for more windows
DAY = timedelta(days=1)


class Rival(Record, frozen=True):
    """The champion's error and its predecessor's on the same requests of one window."""

    since: datetime
    values: int
    error: float
    predecessor_error: float


class State(Record, frozen=True):
    """All that a decision depends on; windows and rivals are the champion's, oldest first.

    `promotion` made it champion, `new_share` counts the rows that its snapshot lacks as a share of those it has,
    `trained_at` is when the last training of the family began, and `nothing_new` why another would learn nothing.
    """

    family: str
    version: str
    metric: str
    unit: str = ""
    test_error: float | None = None
    test_baseline_error: float | None = None
    windows: list[QualityWindow] = []
    rivals: list[Rival] = []
    drifts: list[Drift] = []
    promotion: Promotion | None = None
    age_days: float | None = None
    new_share: float = 0.0
    trained_at: datetime | None = None
    nothing_new: str = ""


class Finding(NamedTuple):
    """One cause: whether it is there, or surely over, and in what words; `mendable` by a training."""

    cause: Cause
    bad: bool
    clear: bool
    text: str
    numbers: dict[str, Any]
    mendable: bool = True


def decide(
    state: State,
    policy: Policy,
    past: Sequence[Act],
    *,
    id: str,
    now: datetime,
    workflow_id: str | None = None,
) -> Act | None:
    """Return what is to be done now, or None; `past` holds earlier acts of the family, newest first.

    In a dry run only dry acts count as done before, and else only those that were no dry ones.
    """
    before = [act for act in past if act.dry_run == policy.dry_run]
    found = _rollback(state, policy, before, now) or _by_causes(state, policy, before, now)
    if found is None:
        return None
    action, reason, evidence = found
    return Act(
        id=id,
        family=state.family,
        at=now,
        action=action,
        reason=reason,
        evidence={"version": state.version, **evidence},
        dry_run=policy.dry_run,
        workflow_id=workflow_id,
    )


_Found = tuple[Literal["retrain", "rollback", "alert", "recover"], str, dict[str, Any]]

# -- rollback --------------------------------------------------------------------------------------


def _rollback(state: State, policy: Policy, before: Sequence[Act], now: datetime) -> _Found | None:
    move = state.promotion
    if move is None or move.from_version is None or move.action == "rollback":
        return None  # a rollback is not rolled back: two bad models would take turns
    if now - move.at > policy.rollback_days * DAY or _tried_lately(state, policy, before, now):
        return None
    against = _against(state.rivals, policy)
    if against is None:
        return None
    own, other, values = against
    reason = (
        f"version {state.version} has a live {state.metric} of {own:.4g} {state.unit}".rstrip()
        + f", its predecessor {move.from_version} would have had {other:.4g} on the same {values} values"
    )
    evidence = {
        "causes": [],
        "predecessor": move.from_version,
        "error": own,
        "predecessor_error": other,
        "values": values,
        "windows": plain(state.rivals),
    }
    return "rollback", reason, evidence


def _tried_lately(state: State, policy: Policy, before: Sequence[Act], now: datetime) -> bool:
    return any(
        act.action == "rollback"
        and act.evidence.get("version") == state.version
        and now - act.at < policy.patience_days * DAY
        for act in before
    )


def _against(rivals: Sequence[Rival], policy: Policy) -> tuple[float, float, int] | None:
    """Return the errors of both and the values they are over, when they speak for a rollback."""
    values = sum(each.values for each in rivals)
    if values < policy.least_values:
        return None
    own = sum(each.error * each.values for each in rivals) / values
    other = sum(each.predecessor_error * each.values for each in rivals) / values
    allowed = 1 + policy.rollback_margin
    judged = [each for each in rivals if each.values >= policy.least_values][-policy.windows :]
    worse = sum(each.error > each.predecessor_error * allowed for each in judged)
    often = worse >= policy.bad_windows and own > other * allowed
    return (own, other, values) if often or own > other * TWICE else None


# -- causes ----------------------------------------------------------------------------------------


def _by_causes(state: State, policy: Policy, before: Sequence[Act], now: datetime) -> _Found | None:
    found = findings(state, policy)
    last = {each.cause: _last(before, each.cause) for each in found}
    bad = [each for each in found if each.bad]
    due = [each for each in bad if each.mendable and _due(last[each.cause], policy, now)]
    hindrance = _hindrance(state, policy, before, now)
    if due and not hindrance:
        return "retrain", _text(due), _evidence(due)
    untold = [each for each in bad if not _open(last[each.cause])]
    if untold:
        why = (
            f" (no training: {hindrance})" if hindrance and any(e.mendable for e in untold) else ""
        )
        return "alert", _text(untold) + why, _evidence(untold)
    over = [each for each in found if each.clear and _open(last[each.cause])]
    return ("recover", _text(over), _evidence(over)) if over else None


def _last(before: Iterable[Act], cause: Cause) -> Act | None:
    return next((act for act in before if cause in act.evidence.get("causes", ())), None)


def _open(last: Act | None) -> bool:
    return last is not None and last.action != "recover"


def _due(last: Act | None, policy: Policy, now: datetime) -> bool:
    """Say whether a cause may start a training: it did not yet, or that did not help for long."""
    if last is None or last.action != "retrain":
        return True
    return now - last.at >= policy.patience_days * DAY


def _hindrance(state: State, policy: Policy, before: Sequence[Act], now: datetime) -> str:
    """Return what forbids a training now, or an empty text."""
    started = [act.at for act in before if act.action == "retrain"]
    if sum(now - at < DAY for at in started) >= policy.daily_budget:
        return f"the budget of {policy.daily_budget} a day is used up"
    newest = max([*started, *([state.trained_at] if state.trained_at else [])], default=None)
    if newest is not None and now - newest < timedelta(hours=policy.cooldown_hours):
        return f"the last one began less than {policy.cooldown_hours:g} h ago"
    return state.nothing_new


def _text(found: Sequence[Finding]) -> str:
    return "; ".join(each.text for each in found)


def _evidence(found: Sequence[Finding]) -> dict[str, Any]:
    return {
        "causes": [each.cause for each in found],
        **{each.cause: each.numbers for each in found},
    }


def findings(state: State, policy: Policy) -> list[Finding]:
    """Return what there is to say of each cause."""
    judged = [each for each in state.windows if _judged(each, policy)]
    return [
        _error(state, policy, judged[-policy.windows :]),
        _spike(state, policy, judged),
        _jump(policy, judged[-policy.windows :]),
        _drift(state, policy),
        _answers(state, policy),
        _age(state, policy),
        _rows(state, policy),
    ]


def _judged(window: QualityWindow, policy: Policy) -> bool:
    return window.error is not None and window.values >= policy.least_values


def _error(state: State, policy: Policy, judged: Sequence[QualityWindow]) -> Finding:
    bad = sum(_bad(each, state, policy.error_tolerance) for each in judged)
    edge = policy.error_tolerance * policy.clear_share
    clear = not any(_bad(each, state, edge) for each in judged)
    return Finding(
        "error",
        bad=bad >= policy.bad_windows,
        clear=len(judged) >= policy.bad_windows and clear,
        text=f"{bad} of the last {len(judged)} windows are bad: {_errors(state, judged)}",
        numbers={"bad": bad, "windows": plain(list(judged)), "test_error": state.test_error},
    )


def _bad(window: QualityWindow, state: State, tolerance: float) -> bool:
    """Say whether a window is worse than its version promised, and harder hours are not the reason."""
    error, baseline = window.error or 0.0, window.baseline_error
    if state.test_error is None:
        return baseline is not None and error > baseline
    ratio = error / state.test_error
    if not baseline or not state.test_baseline_error:
        return ratio > 1 + tolerance
    return min(ratio, ratio / (baseline / state.test_baseline_error)) > 1 + tolerance


def _errors(state: State, judged: Sequence[QualityWindow]) -> str:
    shown = ", ".join(f"{each.error:.4g}" for each in judged)
    promised = "" if state.test_error is None else f" (in its test {state.test_error:.4g})"
    return f"{state.metric} {shown or 'unknown'}{promised}"


def _spike(state: State, policy: Policy, judged: Sequence[QualityWindow]) -> Finding:
    newest = judged[-1].error if judged else None
    ratio = newest / state.test_error if newest is not None and state.test_error else None
    edge = policy.alert_tolerance * policy.clear_share
    return Finding(
        "spike",
        bad=ratio is not None and ratio > 1 + policy.alert_tolerance,
        clear=ratio is not None and ratio < 1 + edge,
        text=f"the newest window: {_errors(state, judged[-1:])}",
        numbers={"error": newest, "test_error": state.test_error},
        mendable=False,
    )


def _jump(policy: Policy, judged: Sequence[QualityWindow]) -> Finding:
    """Tell of one value that nothing in the test was like: a day's mean error hides the hour of a jump."""
    known = [each.surprise for each in judged if each.surprise is not None]
    largest = max(known, default=0.0)
    return Finding(
        "jump",
        bad=largest > 1 + policy.jump_tolerance,
        clear=bool(known) and largest < 1 + policy.jump_tolerance * policy.clear_share,
        text=f"one value is off by {largest:.3g} times the largest error of the test",
        numbers={"surprise": largest, "windows": plain(list(judged))},
        mendable=False,
    )


def _drift(state: State, policy: Policy) -> Finding:
    return _drifted("drift", state, policy, ("input", "relation"))


def _answers(state: State, policy: Policy) -> Finding:
    return _drifted("answers", state, policy, ("output",))._replace(mendable=False)


def _drifted(cause: Cause, state: State, policy: Policy, kinds: Sequence[str]) -> Finding:
    known = [d for d in state.drifts if d.kind in kinds and d.score is not None]
    lasting = [d for d in known if d.lasted >= policy.drift_checks]
    worst = max(known, key=lambda d: d.score or 0.0, default=None)
    shown = f"{worst.feature} is at {worst.score:.3g} times its threshold" if worst else "unknown"
    return Finding(
        cause,
        bad=bool(lasting),
        clear=bool(known) and all((d.score or 0.0) < policy.clear_share for d in known),
        text=f"drift: {shown}, {len(lasting)} of {len(known)} features have drifted",
        numbers={"features": plain(lasting or known)},
    )


def _age(state: State, policy: Policy) -> Finding:
    bad = state.age_days is not None and state.age_days > policy.age_days
    text = f"the champion's rows are {state.age_days or 0:.1f} days old"
    return Finding("age", bad, not bad, text, {"age_days": state.age_days})


def _rows(state: State, policy: Policy) -> Finding:
    bad = state.new_share >= policy.new_share
    text = f"there are {state.new_share:.0%} more rows than the champion was trained on"
    return Finding("rows", bad, not bad, text, {"new_share": state.new_share})
