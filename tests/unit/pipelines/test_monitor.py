from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd
import sqlalchemy as sa

from raysys import families, metrics
from raysys.pipelines import monitor
from raysys.records import Promotion, Run
from raysys.settings import Settings
from raysys.store import ledger, observations, promotions
from raysys.store.tables import WEATHER_COLUMNS
from tests.conftest import NOW


def test_age_and_gaps_of_hours_are_measured(engine: sa.Engine, settings: Settings) -> None:
    atmos = families.get("atmos")
    assert [level.name for level in monitor.data_levels(engine, atmos, settings, NOW)] == [
        "data_rows"
    ]
    times = pd.date_range(NOW - timedelta(days=40), NOW - timedelta(hours=5), freq="h")
    frame = pd.DataFrame({"time": times.delete([700, 701])}).assign(
        **dict.fromkeys(WEATHER_COLUMNS, 1.0)
    )
    observations.store_window(
        engine,
        family="atmos",
        source="sample",
        series="sample-108",
        frame=frame,
        rejections=[],
        days=[],
        workflow_id=None,
        now=NOW,
    )
    day = NOW.date() - timedelta(days=3)
    of = {"source": "sample", "series": "sample-108", "error": "busy"}
    ledger.mark_failed(engine, days=[day], workflow_id=None, now=NOW, **of)
    levels = monitor.data_levels(engine, atmos, settings, NOW)
    assert {level.name: level.value for level in levels} == {
        "data_rows": len(frame),
        "data_age_hours": 5,
        "data_missing_hours": 2,
        "data_failed_days": 1,
    }
    assert all(level.labels == {"family": "atmos"} for level in levels)


def test_runs_are_counted_by_workflow_and_status() -> None:
    class Client:
        def list(self, *, limit: int) -> list[Run]:
            def run(status: str, age_days: float) -> Run:
                at = NOW - timedelta(days=age_days)
                known = {"id": "x", "name": "train", "args": [], "created_at": at}
                return Run(**known, status=status, ended_at=at)  # type: ignore[arg-type]

            return [run("FAILED", 0.1), run("FAILED", 0.2), run("FAILED", 3), run("RUNNING", 3)]

    levels = monitor.run_levels(Client(), NOW)  # type: ignore[arg-type]
    assert {level.labels["status"]: level.value for level in levels} == {"FAILED": 2, "RUNNING": 1}


def test_the_age_of_a_champion_counts_from_its_first_promotion(engine: sa.Engine) -> None:
    atmos = families.get("atmos")
    assert {level.name for level in monitor.model_levels(engine, atmos, NOW)} == {"promotions"}
    moves = [("promote", "1", 30), ("promote", "2", 20), ("rollback", "1", 10)]
    for action, version, hours in moves:
        promotion = Promotion(
            id=f"{action}-{version}",
            family="atmos",
            alias="champion",
            action=action,  # type: ignore[arg-type]
            to_version=version,
            from_version=None,
            actor="test",
            reason="",
            at=NOW - timedelta(hours=hours),
        )
        promotions.append(engine, promotion)
    levels = monitor.model_levels(engine, atmos, NOW)
    assert {level.labels.get("action", level.name): level.value for level in levels} == {
        "promote": 2,
        "rollback": 1,
        "model_age_hours": 30,
    }


def test_every_level_is_a_declared_metric(
    engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    levels = [
        *monitor.data_levels(engine, families.get("insurance"), settings, NOW),
        *monitor.model_levels(engine, families.get("insurance"), NOW),
        *monitor.disk_levels(tmp_path),
    ]
    for level in levels:
        assert set(level.labels) == set(metrics.METRICS[level.name].labels)
