"""The loop of quality, as a plain function: outside a worker its steps are plain functions too."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from raysys import durable, families
from raysys.families.insurance import Insurance
from raysys.pipelines import promote
from raysys.records import Feedback, Snapshot, revive
from raysys.runtime import Runtime
from raysys.settings import Settings
from raysys.store import decisions, examples, feedback, predictions, promotions, snapshots
from tests.unit.serving.tiny import scaled
from tests.world import Shelf
from workflows import quality

FAMILY = families.get("insurance")
HOUR = timedelta(hours=1)
SCORES = json.dumps({"model": {"mae": 1.0}, "linear": {"mae": 2.0}})


class Starts:
    """The engine's client, as far as the loop needs one."""

    def __init__(self) -> None:
        self.started: list[tuple[Any, ...]] = []

    def start(self, *args: Any, workflow_id: str, dedup: str) -> str:
        self.started.append((*args, workflow_id, dedup))
        return workflow_id


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A registry with two versions: the first is right, the second says three times as much."""
    shelf = Shelf()
    for scale in (1.0, 3.0):
        tags = {"raysys.scores": SCORES, "raysys.snapshot": "abc"}
        shelf.add("insurance", scaled(6, scale), tags)
    monkeypatch.setattr(Runtime, "registry", shelf)
    return shelf


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    starts = Starts()
    monkeypatch.setattr(Runtime, "durable", starts)
    return starts


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RAYSYS_HOME", str(tmp_path))
    # The answer of a multiplied row is its six products; the first of them is enough here.
    monkeypatch.setattr(Insurance, "decode", lambda _self, out: out[:, 0].tolist())
    return Settings()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, engine: sa.Engine) -> Callable[..., dict[str, Any]]:
    def run(workflow_id: str = "quality-1") -> dict[str, Any]:
        monkeypatch.setattr(durable, "workflow_id", lambda: workflow_id)
        return quality.quality("insurance")

    return run


def move(engine: sa.Engine, shelf: Any, version: str) -> None:
    given: Any = {"report": {}, "now": datetime.now(UTC) - HOUR, "actor": "test"}
    promote.promote(
        engine, shelf, family="insurance", version=version, reason="", id=version, **given
    )


def ask(engine: sa.Engine, version: str, scale: float, count: int = 40) -> None:
    """Log requests of people aged 20, 21, ..., and send in their truth, which is the age."""
    now = datetime.now(UTC)
    rows = [
        {
            "id": f"{version}-{age}",
            "request_id": f"{version}-{age}",
            "family": "insurance",
            "version": version,
            "at": now - timedelta(minutes=30),
            "latency_ms": 1.0,
            "inputs": {**FAMILY.example, "age": age},
            "outputs": scale * age,
        }
        for age in range(20, 20 + count)
    ]
    predictions.append_many(engine, rows)
    said = [
        revive({"request_id": f"{version}-{age}", "values": [float(age)]}, Feedback)
        for age in range(20, 20 + count)
    ]
    feedback.add(engine, "insurance", said, source="test", now=now)


def test_without_a_champion_only_truth_is_joined(
    run: Callable[..., dict[str, Any]], shelf: Shelf
) -> None:
    report = run()
    assert (report["version"], report["act"], report["done"]) == (None, None, "")
    assert report["joined"]["added"] == 0


def test_a_champion_worse_than_its_predecessor_is_rolled_back_once(
    run: Callable[..., dict[str, Any]], engine: sa.Engine, shelf: Shelf, starts: Starts
) -> None:
    move(engine, shelf, "1")
    move(engine, shelf, "2")
    ask(engine, "2", scale=3.0)
    report = run()
    assert report["joined"]["added"] == 40
    assert report["act"]["action"] == "rollback"
    assert report["done"] == "version 1 is champion again"
    again = run()  # the worker died before the end: the same run does the same
    assert again["act"] == report["act"]
    assert [m.action for m in promotions.history(engine)] == ["rollback", "promote", "promote"]
    assert run("quality-2")["act"] is None
    (act,) = decisions.history(engine, "insurance")
    assert act.reason == promotions.history(engine)[0].reason
    assert "on the same 40 values" in act.reason
    assert act.workflow_id == "quality-1"
    assert starts.started == []


def test_a_rollback_is_left_when_somebody_else_was_faster(
    run: Callable[..., dict[str, Any]],
    engine: sa.Engine,
    shelf: Shelf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    move(engine, shelf, "1")
    move(engine, shelf, "2")
    ask(engine, "2", scale=3.0)
    decided = quality.decide

    def slow(*args: Any) -> Any:
        found = decided(*args)
        shelf.set_alias("insurance", "champion", "1")
        return found

    monkeypatch.setattr(quality, "decide", slow)
    assert run()["done"] == "version 2 is the champion no more: nothing is done"
    assert len(promotions.history(engine)) == 2


def test_many_new_rows_start_one_training(
    run: Callable[..., dict[str, Any]], engine: sa.Engine, shelf: Shelf, starts: Starts
) -> None:
    move(engine, shelf, "1")
    at = datetime.now(UTC) - 2 * HOUR
    taken = Snapshot(hash="abc", family="insurance", uri="gone", rows=2, created_at=at)
    snapshots.add(engine, taken)
    row = {**FAMILY.example, "charges": 1.0}
    rest: Any = {"family": "insurance", "source": "t", "workflow_id": None, "now": at + HOUR}
    examples.add(engine, rows=[row | {"age": age} for age in (30, 31)], **rest)
    report = run()
    assert report["act"]["evidence"]["causes"] == ["rows"]
    training = ("train", "insurance", None, "quality-1-decision-train", "schedule:train-insurance")
    assert starts.started == [training]
    assert run("quality-2")["act"] is None
    assert len(starts.started) == 1
