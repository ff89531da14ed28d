"""Each row is good, or refused with its reason; a bad file is refused whole."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raysys.errors import InvalidInput
from raysys.pipelines import validate
from raysys.records import Rejection
from raysys.store.tables import WEATHER_COLUMNS
from tests.conftest import NOW
from tests.unit.pipelines.families import PLANTS

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    """Hours one after the other from START, where a row does not say otherwise."""
    columns = dict.fromkeys(WEATHER_COLUMNS)
    whole = [
        {"time": START + i * dt.timedelta(hours=1), **columns, **row} for i, row in enumerate(rows)
    ]
    table = pd.DataFrame(whole, dtype="object")
    table["time"] = pd.to_datetime(table["time"], utc=True)
    return table.assign(key=[str(row["time"]) for row in whole], raw=list(rows))


def judge(*rows: dict[str, Any], **limits: Any) -> tuple[pd.DataFrame, list[Rejection]]:
    return validate.weather(frame(*rows), **{"until": NOW, **limits})


def test_good_rows_become_numbers() -> None:
    good, refused = judge({"temperature": "3.6", "humidity": 76}, {"temperature": None})
    assert refused == []
    assert good.columns.tolist() == ["time", *WEATHER_COLUMNS]
    assert good["temperature"].tolist()[0] == 3.6
    assert np.isnan(good["temperature"][1])
    assert set(good.dtypes[1:].astype(str)) == {"float64"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"temperature": "61"}, "temperature 61 is not between -60 and 60"),
        ({"temperature": "-60.1"}, "temperature -60.1 is not between"),
        ({"precipitation": -1}, "precipitation -1 is not between 0 and 500"),
        ({"wind_direction": 361}, "wind_direction 361"),
        ({"wind_speed": 200}, "wind_speed 200"),
        ({"station_pressure": 400}, "station_pressure 400"),
        ({"sea_pressure": 1200}, "sea_pressure 1200"),
        ({"humidity": 101}, "humidity 101 is not between 0 and 100"),
        ({"humidity": "inf"}, "humidity inf"),
        ({"temperature": "warm"}, "temperature 'warm' is not a number"),
        ({"time": START.replace(minute=30)}, "is not on the hour"),
        ({"time": NOW + dt.timedelta(hours=1)}, "is after 2026-03-15 12:00 UTC"),
        ({"time": None}, "time 'None' is unreadable"),
    ],
)
def test_bad_row_is_refused_with_its_reason(row: dict[str, Any], reason: str) -> None:
    good, refused = judge({"temperature": 1}, row, {"temperature": 2})
    assert good["temperature"].tolist() == [1, 2]
    assert len(refused) == 1
    assert reason in refused[0].reason
    assert refused[0].raw == row


def test_every_fault_of_a_row_is_named() -> None:
    _, refused = judge({"temperature": "x", "humidity": 150, "wind_speed": -1})
    assert refused[0].reason.count(";") == 2


@pytest.mark.parametrize("value", [-99, "-99.9", -999.0, "-999.9", -9999, 9999, "9999.9"])
def test_disguised_missing_value_is_missing(value: Any) -> None:
    good, refused = judge({"temperature": value, "sea_pressure": 999.9})
    assert refused == []
    assert np.isnan(good["temperature"][0])
    assert good["sea_pressure"][0] == 999.9


def test_identical_repetition_is_kept_once() -> None:
    row = {"time": START, "temperature": 1.5}
    good, refused = judge(row, row, row)
    assert (len(good), refused) == (1, [])


def test_contradicting_repetition_is_refused() -> None:
    good, refused = judge({"time": START, "temperature": 1}, {"time": START, "temperature": 2})
    assert good["temperature"].tolist() == [1]
    assert [r.reason for r in refused] == ["contradicts an earlier row of the same hour"]


def test_hour_that_goes_back_is_refused() -> None:
    late = {"time": START + dt.timedelta(hours=9)}
    good, refused = judge({}, late, {"time": START + dt.timedelta(hours=2)}, late | {"a": 1})
    assert len(good) == 2
    assert [r.reason for r in refused] == ["goes back in time"]


def test_hours_given_newest_first_are_turned_round() -> None:
    rows = [{"time": START - i * dt.timedelta(hours=1)} for i in range(5)]
    good, refused = judge(*rows)
    assert good["time"].is_monotonic_increasing
    assert (len(good), refused) == (5, [])


def test_hour_outside_of_what_was_asked_is_refused() -> None:
    _, refused = judge({}, {}, since=START + dt.timedelta(hours=1))
    assert [r.reason for r in refused] == [
        "time 2026-03-01 00:00:00+00:00 is before 2026-03-01 01:00 UTC"
    ]


def test_no_rows_are_no_trouble() -> None:
    good, refused = validate.weather(frame({}).head(0), until=NOW)
    assert (len(good), refused) == (0, [])


# -- tables --------------------------------------------------------------------------------------

HEADER = "height,leaves,kind,potted,note,weight"
GOOD = "1.5,3,fern,true,,0.25"


def table(*lines: str, header: str = HEADER) -> tuple[list[dict[str, Any]], list[Rejection]]:
    return validate.table(PLANTS, "\n".join((header, *lines)).encode(), "plants.csv")


def test_texts_become_what_the_request_says() -> None:
    rows, refused = table(GOOD, "2,+4,1,0,by the window,3")
    assert refused == []
    assert rows == [
        {"height": 1.5, "leaves": 3, "kind": "fern", "potted": True, "note": None, "weight": 0.25},
        {
            "height": 2.0,
            "leaves": 4,
            "kind": 1,
            "potted": False,
            "note": "by the window",
            "weight": 3.0,
        },
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("tall,3,fern,true,,1", "height 'tall' is not a number"),
        ("nan,3,fern,true,,1", "height 'nan' is not a finite number"),
        ("100,3,fern,true,,1", "height 100 is not less than 100"),
        ("-1,3,fern,true,,1", "height -1 is less than 0"),
        ("1,3.5,fern,true,,1", "leaves '3.5' is not a whole number"),
        ("1,51,fern,true,,1", "leaves 51 is more than 50"),
        ("1,,fern,true,,1", "leaves is empty"),
        ("1,3,tree,true,,1", "kind tree is none of 0, 1, fern, moss"),
        ("1,3,2,true,,1", "kind 2 is none of"),
        ("1,3,fern,maybe,,1", "potted 'maybe' is neither true nor false"),
        ("1,3,fern,true,,0", "weight 0 is not more than 0"),
        ("1,3,fern,true,,inf", "weight 'inf' is not a finite number"),
        ("1,3,fern,true,,", "weight is empty"),
    ],
)
def test_bad_line_is_refused_with_its_number(line: str, reason: str) -> None:
    rows, refused = table(*[GOOD] * 10, line, GOOD)
    assert len(rows) == 11
    assert [(r.line, r.key) for r in refused] == [(12, "line 12")]
    assert reason in refused[0].reason


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        (b"", ["column height is missing", "column weight is missing", "it has no rows"]),
        (HEADER.encode(), ["it has no rows"]),
        (f"{HEADER}\n{GOOD}\xff".encode("latin-1"), ["it is not UTF-8 text"]),
        (
            f"{HEADER}\n{GOOD}\n1,2\n{GOOD},9".encode(),
            ["2 values for 6 columns", "7 values for 6 columns"],
        ),
        (
            b"height,size,leaves,leaves\n1,2,3,4",
            ["column size is unknown", "column kind is missing", "column leaves stands twice"],
        ),
        (f'{HEADER}\n"1,2'.encode(), ["it is not CSV"]),
        (
            "\n".join([HEADER, *[GOOD] * 8, "x,3,fern,true,,1", "1,99,fern,true,,1"]).encode(),
            ["2 of 10 rows are bad", "height 'x' is not a number", "leaves 99 is more than 50"],
        ),
    ],
    ids=["empty", "header", "bytes", "ragged", "columns", "quote", "mostly"],
)
def test_bad_file_is_refused_with_every_fault(content: bytes, reasons: list[str]) -> None:
    with pytest.raises(InvalidInput, match=r"plants\.csv was refused as a whole") as caught:
        validate.table(PLANTS, content, "plants.csv")
    told = [issue["reason"] for issue in caught.value.issues]
    for reason in reasons:
        assert any(reason in t for t in told), (reason, told)


def test_file_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\n {GOOD} \r\n\r\n".encode())
    rows, refused = validate.table(PLANTS, path)
    assert (len(rows), refused) == (1, [])


def test_absent_file_is_invalid_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        validate.table(PLANTS, tmp_path / "none.csv")


def test_names_and_codes_of_the_insurance_family_are_accepted() -> None:
    from raysys import families

    content = (
        b"age,sex,bmi,children,smoker,region,charges\n"
        b"19,female,27.9,0,yes,southwest,16884.924\n19,0,27.9,0,1,3,16884.924\n"
    )
    rows, refused = validate.table(families.get("insurance"), content)
    assert refused == []
    assert [row["region"] for row in rows] == ["southwest", 3]
