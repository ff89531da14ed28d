from __future__ import annotations

import pytest

from raysys import metrics
from raysys.metrics import METRICS, Levels

Sent = list[tuple[str, float, dict[str, str]]]


class Agent:
    """Takes what a process of a cluster would tell Ray."""

    def __init__(self) -> None:
        self.added: dict[tuple[str, str], float] = {}
        self.gauges: dict[str, float] = {}

    def add(self, name: str, part: str, amount: float, labels: dict[str, str]) -> None:
        key = (name + part, ",".join(labels.values()))
        self.added[key] = self.added.get(key, 0) + amount

    def set(self, name: str, value: float, labels: dict[str, str]) -> None:
        self.gauges[name] = value


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Agent:
    """Ray's agent, as if this process had joined a cluster."""
    made = Agent()
    monkeypatch.setattr(metrics, "exported", lambda: True)
    monkeypatch.setattr(metrics, "_sink", lambda: made)
    return made


def test_nothing_is_sent_by_a_process_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Agent()
    monkeypatch.setattr(metrics, "_sink", lambda: made)
    metrics.add("trials", family="waves")
    metrics.observe("model_load_seconds", 1, family="waves")
    metrics.gauge("model_version", 1, family="waves")
    assert not made.added
    assert not made.gauges


def test_a_histogram_is_exported_as_cumulative_counters(agent: Agent) -> None:
    bounds = METRICS["model_load_seconds"].bounds
    counts = [2, *[0] * (len(bounds) - 1), 1]
    metrics.add_buckets("model_load_seconds", counts, 42.0, family="waves")
    buckets = [agent.added["model_load_seconds_bucket", f"waves,{bound:g}"] for bound in bounds]
    assert buckets == [2] * len(bounds)
    assert agent.added["model_load_seconds_bucket", "waves,+Inf"] == 3
    assert agent.added["model_load_seconds_sum", "waves"] == 42
    assert agent.added["model_load_seconds_count", "waves"] == 3


@pytest.mark.parametrize("value", [0.01, 0.02])
def test_a_bound_belongs_to_its_bucket(agent: Agent, value: float) -> None:
    metrics.observe("model_load_seconds", value, family="waves")
    assert agent.added["model_load_seconds_bucket", "waves,0.01"] == (value <= 0.01)
    assert agent.added["model_load_seconds_bucket", "waves,0.05"] == 1


def test_a_level_is_told_again_until_it_is_too_old() -> None:
    sent: Sent = []
    now = [0.0]
    levels = Levels(lambda *of: sent.append(of), lambda: now[0])
    of = {"family": "waves", "version": "1"}
    levels.set("live_error", 2.0, of)
    levels.set("live_error", 3.0, of)
    levels.refresh()
    levels.refresh()
    assert sent == [("live_error", 3.0, of)] * 2
    levels.set("best_metric", 5.0, {"family": "waves"})
    keep = metrics.KEEP_HOURS * metrics.HOUR_SECONDS
    now[0] = keep / 2
    levels.set("live_error", 4.0, {"family": "waves", "version": "2"})
    now[0] = keep + 1
    sent.clear()
    levels.refresh()
    assert [value for _, value, _ in sent] == [5.0, 4.0], "a study is run once a day"


def test_labels_other_than_the_declared_are_refused() -> None:
    with pytest.raises(ValueError, match="labels"):
        metrics.level("live_error", 1.0, family="waves")
    with pytest.raises(KeyError):
        metrics.level("unheard_of", 1.0)


def test_names_and_bounds_are_what_prometheus_takes() -> None:
    for name, metric in METRICS.items():
        assert name.replace("_", "").isalnum()
        assert name == name.lower()
        assert not name.endswith(("_total", "_bucket", "_sum", "_count"))
        assert metric.about.endswith(".")
        assert list(metric.bounds) == sorted(set(metric.bounds))
        assert bool(metric.bounds) == (metric.kind == "histogram")
