"""The import of CSV files, and what is stored of a family; crawling is in `crawl`."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from raysys import sources
from raysys.families.base import Family, Series, Table
from raysys.pipelines import crawl, csv_rows, validate
from raysys.records import ImportReport
from raysys.settings import Settings
from raysys.store import examples, observations
from raysys.store.tables import WEATHER_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "csv"
# The names that the original system gave its columns.
ALIASES = {
    "tmp": "temperature",
    "precip": "precipitation",
    "wd": "wind_direction",
    "ws": "wind_speed",
    "p": "station_pressure",
    "mslp": "sea_pressure",
    "rh": "humidity",
}
POINTS = (
    *("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE"),
    *("S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW"),
)
COMPASS = {point: str(22.5 * i) for i, point in enumerate(POINTS)}
MISSING = {"", "na", "nan", "n/a", "null", "none", "-"}


def import_csv(
    engine: sa.Engine,
    family: Family,
    path: Path,
    *,
    settings: Settings,
    now: datetime,
    workflow_id: str | None = None,
) -> ImportReport:
    """Import the rows of a CSV file; a file imported again adds nothing.

    Bad rows are refused one by one. Raises InvalidInput, with nothing stored, when the file as a
    whole is bad; hours go into the series that `settings` name.
    """
    path = Path(path)
    match family.data:
        case Table():
            return _import_table(engine, family, path, path.name, workflow_id, now)
        case Series(column=column):
            return _import_hours(engine, family.name, column, path, settings, workflow_id, now)


def import_sample(
    engine: sa.Engine, family: Family, *, seed: int, now: datetime
) -> ImportReport | None:
    """Import the simulated rows that a family of tables brings along; None when it brings none."""
    rows = family.sample(seed)
    if not rows:
        return None
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return _import_table(
        engine, family, text.getvalue().encode(), examples.SIMULATED, workflow_id=None, now=now
    )


def stored(engine: sa.Engine, family: Family, settings: Settings) -> dict[str, Any]:
    """Return how many rows of `family` are stored; for hours, of which series, time and sources."""
    if isinstance(family.data, Table):
        return {"rows": examples.count(engine, family.name)}
    series = sources.series_name(settings)
    first, last, rows = observations.span(engine, series)
    origin = observations.sources(engine, series)
    return {"rows": rows, "series": series, "from": first, "to": last, "sources": origin}


def _import_table(
    engine: sa.Engine,
    family: Family,
    content: Path | bytes,
    source: str,
    workflow_id: str | None,
    now: datetime,
) -> ImportReport:
    rows, rejected = validate.table(family, content, source)
    new, known = examples.add(
        engine,
        family=family.name,
        rows=rows,
        source=source,
        workflow_id=workflow_id,
        now=now,
        rejections=rejected,
    )
    read = len(rows) + len(rejected)
    return ImportReport(
        family=family.name, source=source, read=read, new=new, known=known, rejected=rejected
    )


def _import_hours(
    engine: sa.Engine,
    family_name: str,
    wanted: str,
    path: Path,
    settings: Settings,
    workflow_id: str | None,
    now: datetime,
) -> ImportReport:
    series = sources.series_name(settings)
    crawl.refuse_mixture(engine, SOURCE, series)
    sheet = csv_rows.read(path)
    frame, ignored = _hours(sheet, wanted, ZoneInfo(settings.atmos_zone))
    good, rejected = validate.weather(frame, until=now)
    sheet.refuse_if_mostly_bad([(r.line, r.reason) for r in rejected])
    new, known = observations.store_window(
        engine,
        family=family_name,
        source=SOURCE,
        series=series,
        frame=good,
        rejections=rejected,
        days=[],
        workflow_id=workflow_id,
        now=now,
    )
    return ImportReport(
        family=family_name,
        source=path.name,
        read=len(frame),
        new=new,
        known=known,
        rejected=rejected,
        ignored=ignored,
    )


def _hours(sheet: csv_rows.Sheet, wanted: str, zone: ZoneInfo) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of a file as `validate.weather` takes them, and the columns not used."""
    import pandas as pd

    named = {ALIASES.get(column, column): column for column in sheet.header}
    _require(sheet, named, wanted)
    sheet.refuse_if_faulty()
    rows = [row for _, row in sheet.rows]
    keys = [row[named["time"]] for row in rows]
    frame = pd.DataFrame({"key": keys, "line": [line for line, _ in sheet.rows]})
    times = pd.Series([_time(key, zone) for key in keys])
    frame["time"] = pd.to_datetime(times, utc=True).astype("datetime64[ns, UTC]")
    for column in set(WEATHER_COLUMNS) & set(named):
        texts = [row[named[column]] for row in rows]
        frame[column] = pd.Series([_value(text) for text in texts], dtype="object")
    frame["raw"] = pd.Series(rows, dtype="object")
    used = {named[c] for c in ("time", *WEATHER_COLUMNS) if c in named}
    return frame, [column for column in sheet.header if column not in used]


def _require(sheet: csv_rows.Sheet, named: dict[str, str], wanted: str) -> None:
    for column in ("time", wanted):
        if column not in named:
            short = next((a for a, name in ALIASES.items() if name == column), None)
            told = f"{column} (or {short})" if short else column
            sheet.blame(f"column {told} is missing", "header", column)


def _time(text: str, zone: ZoneInfo) -> datetime | None:
    """Return an ISO 8601 time as aware UTC, in `zone` where it names none; None when unreadable."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=zone)).astimezone(UTC)


def _value(text: str) -> str | None:
    return None if text.lower() in MISSING else COMPASS.get(text.upper(), text)
