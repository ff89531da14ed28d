"""What follows from what a challenger did."""

from __future__ import annotations

import pytest

from raysys.serving.rollout import (
    BUCKETS,
    Decision,
    Live,
    Rollout,
    Rule,
    Tried,
    bucket,
    judge,
    quantile,
    read,
    total,
)

RULE = Rule()


def times(seconds: float, count: int) -> tuple[int, ...]:
    return tuple(count if index == bucket(seconds) else 0 for index in range(BUCKETS))


def tried(seconds: float = 0.001, requests: int = 200, **other: object) -> Tried:
    fields = {
        "requests": requests,
        "times": times(seconds, requests),
        "champion_requests": 1800,
        "champion_times": times(0.001, 1800),
        **other,
    }
    return Tried(**fields)  # type: ignore[arg-type]


def verdict(of: Tried, over: bool = True, percent: float = 10) -> Decision:
    return judge(of, Rollout(id="t", version="2", percent=percent), RULE, over=over)


CASES = {
    "good, still baking": (tried(), False, "wait"),
    "good, baked": (tried(), True, "promote"),
    "failing": (tried(failures=5), False, "withdraw"),
    "two failures are no rate": (tried(failures=2), True, "promote"),
    "slow": (tried(0.01), False, "withdraw"),
    "slow, but too few to say": (tried(0.01, requests=50), False, "wait"),
    "too few at the end": (tried(requests=50), True, "withdraw"),
    "refused": (Tried(refused="its hash differs"), False, "withdraw"),
    "nobody told anything yet": (Tried(), False, "wait"),
}


@pytest.mark.parametrize(("of", "over", "action"), CASES.values(), ids=CASES.keys())
def test_a_challenger_is_judged_by_what_it_did(of: Tried, over: bool, action: str) -> None:
    assert verdict(of, over).action == action


LIVE = {
    "as good": (Live(metric="mae", error=1.09, champion_error=1.0, values=30), "promote"),
    "worse by the margin": (
        Live(metric="mae", error=1.11, champion_error=1.0, values=30),
        "withdraw",
    ),
    "worse on too few": (Live(metric="mae", error=9.0, champion_error=1.0, values=29), "promote"),
    "without truth": (None, "promote"),
}


@pytest.mark.parametrize(("live", "action"), LIVE.values(), ids=LIVE.keys())
def test_a_challenger_must_not_be_more_wrong_than_the_champion(
    live: Live | None, action: str
) -> None:
    rollout = Rollout(id="t", version="2", percent=10)
    found = judge(tried(), rollout, Rule(most_error=0.1), over=True, live=live)
    assert found.action == action
    assert ("live mae" in found.reason) == (live is not None)
    early = judge(tried(), rollout, Rule(most_error=0.1), over=False, live=live)
    assert early.action == ("withdraw" if action == "withdraw" else "wait")


def test_the_reason_names_the_numbers() -> None:
    assert "5 of 200 requests failed" in verdict(tried(failures=5)).reason
    assert "its hash differs" in verdict(Tried(refused="its hash differs")).reason


def test_a_challenger_in_shadow_alone_is_never_promoted() -> None:
    found = verdict(tried(compared=10, difference_sum=5.0), percent=0)
    assert found.action == "withdraw"
    assert "mean difference 0.5" in found.reason


@pytest.mark.parametrize("seconds", [0.0, 1e-5, 3e-4, 0.02, 5.0, 1e6])
def test_a_quantile_is_within_a_bucket_of_the_truth(seconds: float) -> None:
    found = quantile(times(seconds, 10), 0.9)
    assert found >= min(seconds, 100)
    assert found <= max(seconds, 1e-5) * 1.5


def test_counts_of_replicas_add_up() -> None:
    found = total([tried(failures=1, difference_most=1.0), tried(failures=2, refused="no")])
    assert (found.requests, found.failures, found.refused) == (400, 3, "no")
    assert sum(found.times) == 400
    assert total([]) == Tried()


@pytest.mark.parametrize("tag", [None, "", "{", "7", "null", '{"id": 1}'])
def test_a_tag_that_is_no_rollout_is_none(tag: str | None) -> None:
    assert read(tag) is None
