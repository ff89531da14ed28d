from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from raysys.durable import flow
from raysys.records import Event
from raysys.settings import Settings
from raysys.store import events, examples
from workflows import crawl, maintenance, monitor, quality, schedules, train

NOW = datetime(2024, 6, 1, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RAYSYS_HOME", str(tmp_path))
    return Settings()


def test_only_series_are_crawled_and_every_family_is_trained(settings: Settings) -> None:
    planned = {each.name: each for each in schedules.table(settings)}
    assert {"crawl-atmos", "train-atmos", "train-insurance", "quality-insurance"} <= set(planned)
    assert "crawl-insurance" not in planned
    assert {each.workflow for each in planned.values()} <= set(flow.registered())
    every = (crawl.crawl, train.train, maintenance.maintenance, monitor.monitor, quality.quality)
    assert {each.workflow for each in planned.values()} == {each.name for each in every}


@pytest.mark.parametrize("ending", ["succeeded", "failed: no trial ended"])
def test_training_waits_for_rows_that_the_last_good_training_lacked(
    engine: sa.Engine, ending: str
) -> None:
    assert schedules.nothing_new("insurance") == "insurance has no rows yet"
    row = {"age": 30, "sex": "male", "bmi": 25.0, "children": 0, "smoker": "no"}
    row |= {"region": "southwest", "charges": 1000.0}
    add = {"family": "insurance", "source": "t", "workflow_id": None, "rejections": []}
    examples.add(engine, rows=[row], now=NOW, **add)
    assert schedules.nothing_new("insurance") == ""
    for step, message, fields in (
        ("take_snapshot", "started", {}),
        ("take_snapshot", "snapshot", {"family": "insurance"}),
        ("take_snapshot", "snapshot", {"family": "atmos"}),
        ("run", ending, {}),
    ):
        told = {"workflow_id": f"train-{fields}" if "atmos" in fields.values() else "train-1"}
        at = NOW + timedelta(hours=1)
        events.append(engine, Event(at=at, step=step, message=message, fields=fields, **told))
    reason = schedules.nothing_new("insurance")
    assert ("last training" in reason) == (ending == "succeeded")
    examples.add(engine, rows=[row | {"age": 31}], now=NOW + timedelta(days=1), **add)
    assert schedules.nothing_new("insurance") == ""
