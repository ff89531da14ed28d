"""The judgement of rows before anything is stored: each is good, or refused with its reason."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from raysys.families.base import Family, Table
from raysys.pipelines import columns, csv_rows
from raysys.records import Rejection
from raysys.store.tables import WEATHER_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

# What a station on Earth can measure, in the units of `store.tables`.
RANGES = {
    "temperature": (-60.0, 60.0),
    "precipitation": (0.0, 500.0),
    "wind_direction": (0.0, 360.0),
    "wind_speed": (0.0, 115.0),
    "station_pressure": (500.0, 1100.0),
    "sea_pressure": (850.0, 1100.0),
    "humidity": (0.0, 100.0),
}
# Numbers that stations write for "no value"; none is possible for any column.
DISGUISED = [-99.0, -99.9, -999.0, -999.9, -9999.0, -9999.9, 9999.0, 9999.9, 99999.0, 99999.9]

Reasons = dict[int, list[str]]


# -- weather -------------------------------------------------------------------------------------


def weather(
    frame: pd.DataFrame, *, since: datetime | None = None, until: datetime
) -> tuple[pd.DataFrame, list[Rejection]]:
    """Judge hours between `since` and `until`; return the good ones and why the others are not.

    `frame` is what `HourlySource.fetch` gives, perhaps with a `line`. The good frame has `time` and
    the WEATHER_COLUMNS (float64, NaN for a missing value, disguised ones included), in order. An
    hour that is repeated with the same values is kept once, silently.
    """
    frame = frame.reset_index(drop=True)
    values, reasons = _numbers(frame)
    _check_hours(values, since, until, reasons)
    good = values.drop(index=list(reasons))
    good = _without_repetitions(good, reasons)
    good = _in_order(good, reasons)
    return good.reset_index(drop=True), [_refused(frame, i, reasons[i]) for i in sorted(reasons)]


def _numbers(frame: pd.DataFrame) -> tuple[pd.DataFrame, Reasons]:
    """Return `time` and the columns as numbers, and the rows that hold something else."""
    import pandas as pd

    reasons: Reasons = defaultdict(list)
    values = pd.DataFrame({"time": frame["time"]})
    for i in frame.index[frame["time"].isna()]:
        reasons[i].append(f"time {_key(frame, i)!r} is unreadable")
    for column in WEATHER_COLUMNS:
        given = frame[column] if column in frame else pd.Series(index=frame.index, dtype="object")
        numbers = pd.to_numeric(given, errors="coerce").astype("float64")
        for i in frame.index[numbers.isna() & given.notna()]:
            reasons[i].append(f"{column} {given[i]!r} is not a number")
        values[column] = numbers.mask(numbers.isin(DISGUISED))
    return values, reasons


def _check_hours(
    values: pd.DataFrame, since: datetime | None, until: datetime, reasons: Reasons
) -> None:
    import pandera.pandas as pa

    hour = [
        pa.Check(lambda time: time == time.dt.floor("h"), error="is not on the hour"),
        pa.Check.less_than_or_equal_to(until, error=f"is after {until:%Y-%m-%d %H:%M %Z}"),
    ]
    if since is not None:
        before = f"is before {since:%Y-%m-%d %H:%M %Z}"
        hour.append(pa.Check.greater_than_or_equal_to(since, error=before))
    columns = {"time": pa.Column(None, hour, nullable=True)}
    for column, (low, high) in RANGES.items():
        check = pa.Check.in_range(low, high, error=f"is not between {low:g} and {high:g}")
        columns[column] = pa.Column("float64", check, nullable=True)
    _collect(pa.DataFrameSchema(columns), values, reasons)


def _collect(schema: Any, values: pd.DataFrame, reasons: Reasons) -> None:
    """Let pandera judge `values` and add each failure to the reasons of its row."""
    from pandera.errors import SchemaErrors

    try:
        schema.validate(values, lazy=True)
    except SchemaErrors as error:
        for case in error.failure_cases.to_dict("records"):
            told = case["failure_case"]
            shown = f"{told:g}" if isinstance(told, float) else str(told)
            reasons[int(case["index"])].append(f"{case['column']} {shown} {case['check']}")


def _without_repetitions(good: pd.DataFrame, reasons: Reasons) -> pd.DataFrame:
    """Keep the first row of each hour; a later one that says something else is refused."""
    later = good["time"].duplicated()
    same = good.duplicated()
    for i in good.index[later & ~same]:
        reasons[i].append("contradicts an earlier row of the same hour")
    return good[~later]


def _in_order(good: pd.DataFrame, reasons: Reasons) -> pd.DataFrame:
    """Refuse the hours that go back in time; rows that all go back are read from the end."""
    if good["time"].is_monotonic_decreasing:
        good = good[::-1]
    back = good["time"] < good["time"].cummax()
    for i in good.index[back]:
        reasons[i].append("goes back in time")
    return good[~back]


def _key(frame: pd.DataFrame, i: int) -> str:
    return str(frame["key"][i] if "key" in frame else frame["time"][i])


def _refused(frame: pd.DataFrame, i: int, reasons: list[str]) -> Rejection:
    return Rejection(
        key=_key(frame, i),
        reason="; ".join(reasons),
        line=int(frame["line"][i]) if "line" in frame else None,
        raw=dict(frame["raw"][i]) if "raw" in frame else {},
    )


# -- tables --------------------------------------------------------------------------------------


def table(
    family: Family, source: Path | bytes, name: str = ""
) -> tuple[list[dict[str, Any]], list[Rejection]]:
    """Judge a CSV file of labelled rows by the family's request type; return good and refused rows.

    Raises InvalidInput, naming every fault, when the file as a whole is bad: missing or unknown
    columns, no UTF-8, ragged lines, no rows, or more than a tenth of them bad.
    """
    kinds = _kinds(family)
    sheet = csv_rows.read(source, name)
    sheet.require(set(kinds))
    sheet.allow(set(kinds))
    sheet.refuse_if_faulty()
    rows, reasons = _typed(sheet, kinds)
    _check_bounds(rows, kinds, reasons)
    _check_requests(family, rows, reasons)
    refused = [_refused_line(sheet, i, reasons[i]) for i in sorted(reasons)]
    sheet.refuse_if_mostly_bad([(r.line, r.reason) for r in refused])
    return [rows[i] for i in sorted(rows) if i not in reasons], refused


def _kinds(family: Family) -> dict[str, columns.Kind]:
    if not isinstance(family.data, Table):
        raise TypeError(f"{family.name} has no table: its rows are hours")
    positive = msgspec.inspect.FloatType(gt=0)
    return {**columns.of_request(family.request), family.data.label: positive}


def _typed(
    sheet: csv_rows.Sheet, kinds: dict[str, columns.Kind]
) -> tuple[dict[int, dict[str, Any]], Reasons]:
    """Return the rows whose every text means something, by number, and why the others do not."""
    rows: dict[int, dict[str, Any]] = {}
    reasons: Reasons = defaultdict(list)
    for i, (_, texts) in enumerate(sheet.rows):
        row = {}
        for name, kind in kinds.items():
            try:
                row[name] = columns.value_of(texts[name], kind)
            except ValueError as error:
                reasons[i].append(f"{name} {error}")
        if i not in reasons:
            rows[i] = row
    return rows, reasons


def _check_bounds(
    rows: dict[int, dict[str, Any]], kinds: dict[str, columns.Kind], reasons: Reasons
) -> None:
    import pandas as pd

    if rows:
        frame = pd.DataFrame(
            list(rows.values()), index=list(rows), columns=list(kinds), dtype="object"
        )
        _collect(columns.schema(kinds), frame, reasons)


def _check_requests(family: Family, rows: dict[int, dict[str, Any]], reasons: Reasons) -> None:
    """Ask the request type itself, which may know more than bounds."""
    label = family.data.label if isinstance(family.data, Table) else ""
    for i, row in rows.items():
        if i in reasons:
            continue
        try:
            msgspec.convert({k: v for k, v in row.items() if k != label}, family.request)
        except msgspec.ValidationError as error:
            reasons[i].append(str(error))


def _refused_line(sheet: csv_rows.Sheet, i: int, reasons: list[str]) -> Rejection:
    line, texts = sheet.rows[i]
    return Rejection(key=f"line {line}", line=line, reason="; ".join(reasons), raw=texts)
