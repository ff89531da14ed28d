"""What maintenance removes, on a real database and real files; the registry and the runs are doubles."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from raysys.artifacts import Artifacts
from raysys.pipelines import retention
from raysys.records import (
    SNAPSHOT_TAG,
    Act,
    Event,
    Feedback,
    ModelVersion,
    Promotion,
    Run,
    Snapshot,
)
from raysys.settings import Settings
from raysys.store import decisions, events, feedback, predictions, promotions, snapshots
from tests.conftest import NOW


def days(count: float) -> datetime:
    return NOW - timedelta(days=count)


class Runs:
    """The part of a client that retention needs."""

    def __init__(self, *runs: Run) -> None:
        self.runs = {run.id: run for run in runs}

    def history(self) -> Iterator[Run]:
        return iter(list(self.runs.values()))

    def delete(self, id: str) -> None:
        del self.runs[id]


class Versions:
    """The part of a registry that retention needs."""

    def __init__(self, *versions: ModelVersion) -> None:
        self.every = list(versions)
        self.deleted: list[str] = []

    def versions(self, _family: str) -> list[ModelVersion]:
        return self.every

    def version(self, _family: str, version: str) -> ModelVersion:
        return next(each for each in self.every if each.version == version)

    def aliases(self) -> dict[str, dict[str, str]]:
        return {"insurance": {a: v.version for v in self.every for a in v.aliases}}

    def delete_version(self, version: ModelVersion) -> None:
        self.deleted.append(version.version)


def run(id: str, age: float, status: Any = "SUCCESSFUL", name: str = "train") -> Run:
    at = days(age)
    return Run(
        id=id, name=name, status=status, args=[], family="insurance", created_at=at, ended_at=at
    )


def version(number: int, age: float, alias: str = "", snapshot: str = "") -> ModelVersion:
    return ModelVersion(
        family="insurance",
        version=str(number),
        run_id="r",
        sha256="s",
        model_uri="u",
        aliases=[alias] if alias else [],
        created_at=days(age),
        tags={SNAPSHOT_TAG: snapshot},
    )


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(str(tmp_path / "artifacts"))


@pytest.mark.parametrize(
    ("limits", "gone"),
    [
        ({}, []),
        ({"days": 5}, ["d7", "d9"]),
        ({"most": 1}, ["d3", "d7", "d9"]),
        ({"days": 8, "most": 3}, ["d9"]),
    ],
)
def test_what_is_too_old_or_too_many_is_expired(limits: dict[str, int], gone: list[str]) -> None:
    items = [(f"d{age}", days(age)) for age in (9, 1, 3, 7)]
    assert retention.expired(items, now=NOW, **{"days": 100, "most": 100, **limits}) == gone


def test_runs_that_may_go_on_are_kept(settings: Settings) -> None:
    client = Runs(
        run("old", 91),
        run("failed", 91, "FAILED"),
        run("fresh", 89),
        run("running", 91, "RUNNING"),
        run("waiting", 91, "PENDING"),
        run("stranded", 91, "RESUMABLE"),
    )
    gone = retention.old_runs(client, settings, NOW)  # type: ignore[arg-type]
    assert {each.id for each in gone} == {"old", "failed"}


def test_forgotten_run_leaves_nothing_of_its_own(engine: sa.Engine, artifacts: Artifacts) -> None:
    client, own, other = Runs(run("a", 91)), "a", "b"
    for id in (own, other):
        events.append(engine, Event(workflow_id=id, at=NOW, step="s", message="m"))
        for path in (f"runs/{id}/study.json", f"runs/{id}/logs/1.log"):
            artifacts.put(path, b"x")
        artifacts.put(f"studies/insurance/{id}/trial", b"x")
        artifacts.put(f"models/insurance/{id}/model.onnx", b"x")
    for _ in range(2):  # a repetition is harmless
        retention.forget_run(client, engine, artifacts, run("a", 91))  # type: ignore[arg-type]
        client.runs["a"] = run("a", 91)
    assert events.after(engine, own) == []
    assert len(events.after(engine, other)) == 1
    assert artifacts.names("runs") == artifacts.names("studies/insurance") == [other]
    assert artifacts.names("models/insurance") == [other]


def test_only_studies_of_good_trainings_go_before_their_runs(
    settings: Settings, artifacts: Artifacts
) -> None:
    runs = [run("good", 15), run("bad", 15, "FAILED"), run("new", 13), run("done", 15)]
    for each in runs[:-1]:
        artifacts.put(f"studies/insurance/{each.id}/trial", b"x")
    gone = retention.old_studies(Runs(*runs), artifacts, settings, NOW)  # type: ignore[arg-type]
    assert [each.rsplit("/", 1)[-1] for each in gone] == ["good"]


def test_version_that_an_alias_or_a_promotion_names_never_goes(
    engine: sa.Engine, settings: Settings
) -> None:
    move = Promotion(
        id="m",
        family="insurance",
        alias="champion",
        action="promote",
        to_version="3",
        from_version="2",
        actor="me",
        reason="better",
        at=NOW,
    )
    promotions.append(engine, move)
    registry = Versions(
        version(1, 900), version(2, 900), version(3, 900), version(4, 900, "challenger")
    )
    given: Any = (engine, registry, "insurance", settings, NOW)
    assert retention.old_versions(*given) == ["1"]
    assert retention.delete_version(registry, "insurance", "1")  # type: ignore[arg-type]
    assert not retention.delete_version(registry, "insurance", "4")  # type: ignore[arg-type]
    assert registry.deleted == ["1"]


def test_snapshot_in_use_is_kept(
    engine: sa.Engine, settings: Settings, artifacts: Artifacts
) -> None:
    for name, age in (("of-a-version", 400), ("of-a-run", 400), ("free", 400), ("newest", 390)):
        uri = artifacts.put(f"snapshots/insurance/{name}.parquet", b"x")
        one = Snapshot(hash=name, family="insurance", uri=uri, rows=1, created_at=days(age))
        snapshots.add(engine, one)
    told = Event(workflow_id="w", at=NOW, step="take_snapshot", message="m")
    events.append(engine, replace(told, fields={"snapshot": "of-a-run"}))
    registry = Versions(version(1, 400, snapshot="of-a-version"))
    given: Any = (engine, registry, "insurance", settings, NOW)
    gone = retention.old_snapshots(*given)
    assert [each.hash for each in gone] == ["free"]
    also = retention.old_snapshots(*given, without=["1"])
    assert {each.hash for each in also} == {"free", "of-a-version"}
    for _ in range(2):
        retention.forget_snapshot(engine, artifacts, gone[0])
    assert len(snapshots.every(engine, "insurance")) == 3
    assert not artifacts.exists(gone[0].uri)


@pytest.mark.parametrize(("most", "left"), [(100, 3), (2, 2)])
def test_predictions_go_by_age_and_count(
    engine: sa.Engine, settings: Settings, most: int, left: int
) -> None:
    row = {"family": "insurance", "version": "1", "latency_ms": 1.0, "inputs": {}, "outputs": {}}
    ages = (1, 2, 3, 31, 40)
    rows = [{**row, "id": f"{age}", "request_id": "r", "at": days(age)} for age in ages]
    predictions.append_many(engine, rows)
    limited = settings.model_copy(update={"keep_predictions": most})
    assert retention.forget_predictions(engine, limited, NOW, dry_run=True) == len(ages) - left
    assert retention.forget_predictions(engine, limited, NOW, dry_run=False) == len(ages) - left
    assert retention.forget_predictions(engine, limited, NOW, dry_run=False) == 0


def test_feedback_goes_with_the_predictions_and_decisions_with_the_versions(
    engine: sa.Engine, settings: Settings
) -> None:
    for age in (1, 31, 366):
        said = Feedback(key=f"{age}", values=[1.0])
        feedback.add(engine, "insurance", [said], source="test", now=days(age))
        act = Act(id=f"{age}", family="insurance", at=days(age), action="retrain", reason="r")
        decisions.append(engine, act)
    given: Any = (engine, settings, NOW)
    for forget, old in ((retention.forget_feedback, 2), (retention.forget_decisions, 1)):
        assert [forget(*given, dry_run=dry) for dry in (True, False, False)] == [old, old, 0]


def test_open_mlflow_runs_of_cancelled_trainings_are_closed() -> None:
    class Told(Runs):
        def events(self, id: str) -> list[tuple[int, Event]]:
            told = Event(workflow_id=id, at=datetime.now(UTC), step="open_run", message="m")
            return [(1, replace(told, fields={"run_id": f"of-{id}"}))]

    class Open:
        def close_left(self, run_id: str) -> int:
            return int(run_id == "of-b")

    client = Told(run("a", 1), run("b", 1, "CANCELED"), run("c", 1, "CANCELED"))
    assert retention.close_tracked_runs(client, Open()) == ["b"]  # type: ignore[arg-type]
