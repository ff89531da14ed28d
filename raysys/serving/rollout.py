"""How a challenger is tried beside the champion: what is asked, what is counted, what follows; no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from raysys.records import Record

# Times grow by the square root of two from bucket to bucket, from 10 us to 100 s.
BUCKETS = 48
SMALLEST_SECONDS = 1e-5


class Rollout(Record, frozen=True):
    """A challenger's share of the answers, and of the champion's requests that it sees in shadow, in percent.

    `id` tells one trial of a version from the next.
    """

    id: str
    version: str
    percent: float = 0.0
    shadow: float = 0.0


class Tried(Record, frozen=True):
    """What one replica, or all of them, counted since a trial began; `times` are counts by bucket."""

    requests: int = 0
    failures: int = 0
    times: tuple[int, ...] = (0,) * BUCKETS
    champion_requests: int = 0
    champion_times: tuple[int, ...] = (0,) * BUCKETS
    compared: int = 0
    difference_sum: float = 0.0
    difference_most: float = 0.0
    refused: str | None = None


class Live(Record, frozen=True):
    """The challenger's error where the truth is known by now, and the champion's on the very same requests."""

    metric: str
    error: float
    champion_error: float
    values: int


class Rule(Record, frozen=True):
    """What a challenger must not do, and how many requests, or values with their truth, prove that it does not."""

    least_requests: int = 100
    least_values: int = 30
    most_error: float = 0.1
    most_failures: float = 0.01
    most_slowdown: float = 2.0
    slack_seconds: float = 0.0005


class Decision(Record, frozen=True):
    """What follows from a trial, and why."""

    action: Literal["wait", "promote", "withdraw"]
    reason: str


def bucket(seconds: float) -> int:
    """Return the bucket of a time."""
    if seconds <= SMALLEST_SECONDS:
        return 0
    return min(BUCKETS - 1, math.ceil(2 * math.log2(seconds / SMALLEST_SECONDS)))


def quantile(times: Sequence[int], share: float) -> float:
    """Return the upper edge, in seconds, of the bucket below which `share` of the counts lie."""
    wanted, seen = share * sum(times), 0
    for index, count in enumerate(times):
        seen += count
        if count and seen >= wanted:
            return float(SMALLEST_SECONDS * 2 ** (index / 2))
    return 0.0


def total(reports: Iterable[Tried]) -> Tried:
    """Return the sum of what replicas counted; one refusal is all replicas', as their bytes are the same."""
    found = Tried()
    for report in reports:
        found = Tried(
            requests=found.requests + report.requests,
            failures=found.failures + report.failures,
            times=_added(found.times, report.times),
            champion_requests=found.champion_requests + report.champion_requests,
            champion_times=_added(found.champion_times, report.champion_times),
            compared=found.compared + report.compared,
            difference_sum=found.difference_sum + report.difference_sum,
            difference_most=max(found.difference_most, report.difference_most),
            refused=found.refused or report.refused,
        )
    return found


def judge(
    tried: Tried, rollout: Rollout, rule: Rule, *, over: bool, live: Live | None = None
) -> Decision:
    """Return what follows from what was counted and from the live error, where the truth came in time.

    `over` is whether the bake time has passed.
    """
    against = _against(tried, rule) or _wrong(live, rule)
    if against:
        return Decision(action="withdraw", reason=against)
    told = summary(tried) + (f"; {_errors(live)}" if live else "")
    if not over:
        return Decision(action="wait", reason=told)
    if not rollout.percent:
        return Decision(action="withdraw", reason=f"the shadow run is over: {told}")
    if tried.requests < rule.least_requests:
        few = (
            f"{tried.requests} requests are too few to judge by ({rule.least_requests} are needed)"
        )
        return Decision(action="withdraw", reason=few)
    return Decision(action="promote", reason=told)


def summary(tried: Tried) -> str:
    """Return what was counted as one line."""
    slow, fast = (quantile(t, 0.9) * 1e3 for t in (tried.times, tried.champion_times))
    text = (
        f"{tried.failures} of {tried.requests} requests failed; p90 {slow:.2g} ms, "
        f"the champion's {fast:.2g} ms"
    )
    if tried.compared:
        mean = tried.difference_sum / tried.compared
        text += f"; {tried.compared} compared in shadow, mean difference {mean:.4g}"
    return text


def _against(tried: Tried, rule: Rule) -> str:
    if tried.refused:
        return f"replicas refuse it: {tried.refused}"
    # Three failures at least: one bad request of the first ten is no rate.
    if tried.failures >= max(3, rule.most_failures * tried.requests):
        return f"it fails: {summary(tried)}"
    if min(tried.requests, tried.champion_requests) < rule.least_requests:
        return ""
    slow, fast = quantile(tried.times, 0.9), quantile(tried.champion_times, 0.9)
    if slow > fast * rule.most_slowdown + rule.slack_seconds:
        return f"it is slow: {summary(tried)}"
    return ""


def _wrong(live: Live | None, rule: Rule) -> str:
    if live is None or live.values < rule.least_values:
        return ""
    worse = live.error > live.champion_error * (1 + rule.most_error)
    return f"it is wrong: {_errors(live)}" if worse else ""


def _errors(live: Live) -> str:
    return (
        f"live {live.metric} {live.error:.4g}, the champion's {live.champion_error:.4g} "
        f"on the same {live.values} values"
    )


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def read(tag: str | None) -> Rollout | None:
    """Return the rollout that a registered model's tag holds, or None where it holds none."""
    try:
        return msgspec.json.decode(tag or "null", type=Rollout | None)
    except msgspec.MsgspecError:
        return None
