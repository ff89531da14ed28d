"""Snapshots are named by their content."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from raysys.artifacts import Artifacts
from raysys.errors import Conflict, InvalidInput
from raysys.pipelines import snapshot
from raysys.store import examples, snapshots
from tests.conftest import NOW
from tests.unit.pipelines.families import AIR, PLANTS

ROWS: list[dict[str, Any]] = [
    {"height": 1.5, "leaves": 2, "kind": "fern", "potted": True, "note": None, "weight": 0.5},
    {"height": 0.5, "leaves": 1, "kind": "moss", "potted": False, "note": "ä", "weight": 1.5},
]


def plants(engine: sa.Engine, rows: list[dict[str, Any]]) -> None:
    examples.add(engine, family="plants", rows=rows, source="s", workflow_id=None, now=NOW)


def take(engine: sa.Engine, folder: Path, now: dt.datetime = NOW) -> Any:
    return snapshot.take(engine, Artifacts(str(folder)), PLANTS, None, workflow_id="w", now=now)


def test_same_rows_give_the_same_snapshot(engine: sa.Engine, tmp_path: Path) -> None:
    plants(engine, ROWS)
    first = take(engine, tmp_path)
    assert first.rows == 2
    assert take(engine, tmp_path, NOW + dt.timedelta(1)) == first
    plants(engine, [{**ROWS[0], "leaves": 9}])
    assert take(engine, tmp_path).hash != first.hash
    assert snapshots.get(engine, "plants", first.hash) == first


def test_snapshot_is_loaded_as_it_was_taken(engine: sa.Engine, tmp_path: Path) -> None:
    plants(engine, ROWS)
    table = snapshot.load(Artifacts(str(tmp_path)), take(engine, tmp_path))
    assert table["leaves"].tolist() == [1, 2]
    assert table["kind"].tolist() == ["moss", "fern"]


def test_changed_file_is_refused(engine: sa.Engine, tmp_path: Path) -> None:
    plants(engine, ROWS)
    taken = take(engine, tmp_path)
    table = snapshot.load(Artifacts(str(tmp_path)), taken)
    table.assign(weight=9.0).to_parquet(taken.uri)
    with pytest.raises(Conflict, match="was changed"):
        snapshot.load(Artifacts(str(tmp_path)), taken)


@pytest.mark.parametrize(("family", "series"), [(PLANTS, None), (AIR, "memory-1")])
def test_no_rows_say_how_to_get_some(
    family: Any, series: str | None, engine: sa.Engine, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=r"Run `raysys"):
        snapshot.take(engine, Artifacts(str(tmp_path)), family, series, workflow_id="w", now=NOW)


def frame(**changed: Any) -> pd.DataFrame:
    columns = {
        "time": pd.date_range("2026-01-01", periods=3, freq="h", tz="UTC"),
        "value": [1.0, np.nan, 0.0],
        "count": [1, 2, 3],
        "flag": [True, False, True],
        "name": ["a", "b", "ü"],
    }
    return pd.DataFrame({**columns, **changed})


@pytest.mark.parametrize(
    "same",
    [
        frame(),
        frame().set_index(pd.Index([7, 8, 9])),
        frame(value=[1.0, -np.nan, -0.0]),
        frame(time=pd.date_range("2026-01-01 09:00", periods=3, freq="h", tz="Asia/Seoul")),
        frame(time=frame()["time"].astype("datetime64[us, UTC]")),
        frame(name=pd.Series(["a", "b", "ü"], dtype="object")),
    ],
)
def test_hash_is_of_the_content(same: pd.DataFrame) -> None:
    assert snapshot.content_hash(same) == snapshot.content_hash(frame())


@pytest.mark.parametrize(
    "other",
    [
        frame(value=[1.0, 0.0, 0.0]),
        frame(count=[1.0, 2.0, 3.0]),
        frame(name=["ab", "", "ü"]),
        frame()[::-1],
        frame().rename(columns={"name": "names"}),
        frame()[["value", "time", "count", "flag", "name"]],
        frame().head(2),
    ],
)
def test_hash_sees_every_difference(other: pd.DataFrame) -> None:
    assert snapshot.content_hash(other) != snapshot.content_hash(frame())


def test_hash_is_the_same_on_every_machine() -> None:
    expected = "e992d10762259343210efc194fb10431a791b13cef85502c2abdf6d2e65673cf"
    assert snapshot.content_hash(frame()) == expected
