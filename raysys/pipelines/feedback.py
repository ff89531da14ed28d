"""A file of truth as feedback on predictions; the join finds out which are meant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from raysys.families.base import Family, Series
from raysys.pipelines import columns, csv_rows
from raysys.records import Feedback, ImportReport
from raysys.store import feedback

NAMES = ("request_id", "key")
VALUE, ROW, POSITION = "value", "row", "position"
LONGEST_NAME = 128
MOST_VALUES = 1_000
MOST_ROW = 1_000_000
WHOLE, NUMBER = msgspec.inspect.type_info(int), msgspec.inspect.type_info(float)


class _Line(NamedTuple):
    """One line of a file: a value of a prediction."""

    name: str
    row: int
    position: int
    value: float


def import_csv(engine: sa.Engine, family: Family, path: Path, *, now: datetime) -> ImportReport:
    """Keep the truth in a CSV file as feedback; all of it or, with every fault named, nothing.

    Columns: `request_id` or `key`; the value as `value` or by the name of the label; perhaps `row`, and `position` of
    the value in the answer. Raises InvalidInput.
    """
    sheet = csv_rows.read(path)
    column, value = _columns(sheet, family)
    sheet.refuse_if_faulty()
    lines = [_line(sheet, family, number, row, column, value) for number, row in sheet.rows]
    sheet.refuse_if_faulty()
    said = _gathered(column, [line for line in lines if line is not None])
    new, known = feedback.add(engine, family.name, said, source=path.name, now=now)
    return ImportReport(
        family=family.name, source=path.name, read=len(sheet.rows), new=new, known=known
    )


def _columns(sheet: csv_rows.Sheet, family: Family) -> tuple[str, str]:
    """Return the names of the columns that hold the prediction's name and the value."""
    label = family.data.column if isinstance(family.data, Series) else family.data.label
    named = [column for column in NAMES if column in sheet.header]
    valued = [column for column in dict.fromkeys((VALUE, label)) if column in sheet.header]
    if len(named) != 1:
        sheet.blame("give either a column request_id or a column key", "header")
    if len(valued) != 1:
        sheet.blame(f"give either a column {VALUE} or a column {label}", "header")
    sheet.allow({*NAMES, *valued, ROW, POSITION})
    return (*named, "")[0], (*valued, "")[0]


def _line(
    sheet: csv_rows.Sheet,
    family: Family,
    number: int,
    row: dict[str, str],
    column: str,
    value: str,
) -> _Line | None:
    """Return what a line says, or None with each of its faults noted."""
    values = family.data.horizon if isinstance(family.data, Series) else MOST_VALUES
    before = len(sheet.issues)
    read = {
        ROW: _whole(sheet, number, row, ROW, MOST_ROW),
        POSITION: _whole(sheet, number, row, POSITION, values - 1),
        VALUE: _read(sheet, number, value, row[value], NUMBER),
    }
    if not 0 < len(row[column]) <= LONGEST_NAME or not row[column].isprintable():
        told = f"{column} must have 1 to {LONGEST_NAME} printable characters"
        sheet.blame(told, "line", number)
    if len(sheet.issues) > before:
        return None
    return _Line(row[column], read[ROW], read[POSITION], read[VALUE])


def _whole(
    sheet: csv_rows.Sheet, number: int, row: dict[str, str], column: str, most: int
) -> int | None:
    found: int | None = _read(sheet, number, column, row.get(column, "0"), WHOLE)
    if found is not None and not 0 <= found <= most:
        sheet.blame(f"{column} must lie between 0 and {most}", "line", number)
    return found


def _read(sheet: csv_rows.Sheet, number: int, column: str, text: str, kind: Any) -> Any:
    try:
        return columns.value_of(text, kind)
    except ValueError as error:
        sheet.blame(f"{column} {error}", "line", number)
        return None


def _gathered(column: str, lines: Sequence[_Line]) -> list[Feedback]:
    """Return one piece of feedback a prediction, in the order of their first lines; a later line counts more."""
    found: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
    for line in lines:
        found[line.name, line.row][line.position] = line.value
    return [
        msgspec.convert(
            {column: name, "row": row, "values": [at.get(p) for p in range(max(at) + 1)]}, Feedback
        )
        for (name, row), at in found.items()
    ]
