"""Imports: validated, whole or not at all, harmless to repeat."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from raysys import families
from raysys.errors import Conflict, InvalidInput
from raysys.pipelines import ingest
from raysys.records import ImportReport
from raysys.settings import Settings
from raysys.store import observations, quarantine
from tests.conftest import NOW
from tests.unit.pipelines.families import AIR, PLANTS

PLANT_LINES = ["height,leaves,kind,potted,note,weight", *["1.5,3,fern,true,,0.25"] * 11]
AIR_LINES = ["time,tmp,precip,wd,ws,p,dewp"] + [
    f"2026-03-01 {hour:02d}:00,{hour}.5,0.0,NNW,4.4,1023.0,-18.8" for hour in range(24)
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.csv"


def load(
    engine: sa.Engine, settings: Settings, file: Path, lines: list[str], table: bool = False
) -> ImportReport:
    file.write_text("\n".join(lines))
    family = PLANTS if table else AIR
    return ingest.import_csv(engine, family, file, settings=settings, now=NOW)


def test_table_is_imported_once(engine: sa.Engine, settings: Settings, file: Path) -> None:
    lines = [*PLANT_LINES, "x,3,fern,true,,1"]
    first = load(engine, settings, file, lines, table=True)
    assert (first.read, first.new, first.known) == (12, 11, 0)
    assert [(r.line, r.reason) for r in first.rejected] == [(13, "height 'x' is not a number")]
    again = load(engine, settings, file, lines, table=True)
    assert (again.read, again.new, again.known) == (12, 0, 11)
    assert quarantine.count(engine, "plants") == 1
    assert ingest.stored(engine, PLANTS, settings) == {"rows": 11}


def test_bad_file_stores_nothing(engine: sa.Engine, settings: Settings, file: Path) -> None:
    with pytest.raises(InvalidInput):
        load(engine, settings, file, [*PLANT_LINES, "1,2"], table=True)
    with pytest.raises(InvalidInput):
        load(engine, settings, file, [line.replace(".5", ".x") for line in AIR_LINES])
    assert ingest.stored(engine, PLANTS, settings)["rows"] == 0
    assert ingest.stored(engine, AIR, settings)["rows"] == 0


def test_hours_are_imported_once_in_their_zone(
    engine: sa.Engine, settings: Settings, file: Path
) -> None:
    first = load(engine, settings, file, AIR_LINES)
    assert (first.read, first.new, first.rejected, first.ignored) == (24, 24, [], ["dewp"])
    rows = observations.read(engine, "sample-108")
    assert str(rows["time"][0]) == "2026-02-28 15:00:00+00:00"
    assert rows["wind_direction"][0] == 337.5
    assert rows["station_pressure"][0] == 1023.0
    again = load(engine, settings, file, AIR_LINES)
    assert (again.new, again.known) == (0, 24)
    assert ingest.stored(engine, AIR, settings)["sources"] == {"csv": 24}


@pytest.mark.parametrize(
    ("time", "stored"),
    [
        ("2026-03-01T00:00Z", "2026-03-01 00:00:00+00:00"),
        ("2026-03-01 00:00:00+02:00", "2026-02-28 22:00:00+00:00"),
        ("2026-03-01T00:00:00", "2026-02-28 23:00:00+00:00"),
    ],
)
def test_zone_of_a_time_wins_over_the_setting(
    time: str, stored: str, engine: sa.Engine, settings: Settings, file: Path
) -> None:
    berlin = settings.model_copy(update={"atmos_zone": "Europe/Berlin"})
    load(engine, berlin, file, ["time,temperature", f"{time},1.5"])
    assert str(observations.read(engine, "sample-108")["time"][0]) == stored


def test_bad_hours_are_refused_with_their_lines(
    engine: sa.Engine, settings: Settings, file: Path
) -> None:
    lines = [*AIR_LINES, "tomorrow,1,,,,,", "2026-03-02 00:00,99,NA,-,,,"]
    report = load(engine, settings, file, lines)
    assert (report.new, [r.line for r in report.rejected]) == (24, [26, 27])
    assert "unreadable" in report.rejected[0].reason


@pytest.mark.parametrize(
    ("header", "fault"), [("when,tmp", "column time"), ("time,ws", "temperature (or tmp)")]
)
def test_missing_column_is_named(
    header: str, fault: str, engine: sa.Engine, settings: Settings, file: Path
) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(engine, settings, file, [header, "2026-03-01 00:00,1"])
    assert fault in str(caught.value)


def test_observed_hours_are_not_mixed_into_simulated(
    engine: sa.Engine, settings: Settings, file: Path
) -> None:
    load(engine, settings, file, AIR_LINES)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE observations SET source = 'sample'"))
    with pytest.raises(Conflict, match="RAYSYS_ATMOS_STATION"):
        load(engine, settings, file, AIR_LINES)


def test_real_insurance_rows_are_imported_once(
    engine: sa.Engine, settings: Settings, shared_data: Path
) -> None:
    family, path = families.get("insurance"), shared_data / "insurance.csv"
    reports = [
        ingest.import_csv(engine, family, path, settings=settings, now=NOW) for _ in range(2)
    ]
    assert [(r.new, r.known, r.rejected) for r in reports] == [(1338, 0, []), (0, 1338, [])]
