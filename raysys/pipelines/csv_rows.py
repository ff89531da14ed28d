"""A CSV file as rows of text with their line numbers; what the values mean is not known here."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from raysys.errors import InvalidInput

Issue = dict[str, Any]
SHOWN = 5
MOST_BAD = 0.1  # a file with a larger share of bad rows is not what it claims to be


class Sheet:
    """The header and the rows of a file, and every fault of the file as a whole."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.header: list[str] = []
        self.rows: list[tuple[int, dict[str, str]]] = []
        self.issues: list[Issue] = []

    def blame(self, reason: str, *loc: str | int) -> None:
        """Note a fault, at a line or in a column."""
        self.issues.append({"loc": list(loc), "reason": reason})

    def require(self, columns: set[str]) -> None:
        """Note each of `columns` that the header lacks."""
        for column in sorted(columns - set(self.header)):
            self.blame(f"column {column} is missing", "header", column)

    def allow(self, columns: set[str]) -> None:
        """Note each column of the header that is none of `columns`."""
        for column in self.header:
            if column not in columns:
                self.blame(f"column {column or '(without a name)'} is unknown", "header", column)

    def refuse_if_faulty(self) -> None:
        """Raise InvalidInput with every fault that was noted."""
        if not self.issues:
            return
        shown = "; ".join(_told(issue) for issue in self.issues[:SHOWN])
        more = len(self.issues) - SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        raise InvalidInput(
            f"{self.name} was refused as a whole, nothing of it is stored: {shown}{rest}.",
            issues=self.issues,
        )

    def refuse_if_mostly_bad(self, faults: list[tuple[int | None, str]]) -> None:
        """Raise InvalidInput when the rows with `faults` (line, reason) are more than a tenth."""
        if len(faults) > MOST_BAD * len(self.rows):
            self.blame(f"{len(faults)} of {len(self.rows)} rows are bad", "file")
            for line, reason in faults:
                self.blame(reason, "line", line or 0)
            self.refuse_if_faulty()


def read(source: Path | bytes, name: str = "") -> Sheet:
    """Read a file or its content: UTF-8, a header line, comma-separated."""
    if isinstance(source, Path):
        return _parse(_content(source), name or source.name)
    return _parse(source, name or "the file")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = f"it cannot be read: {error.strerror}"
        raise InvalidInput(
            f"{path.name}: {reason}.", issues=[{"loc": [], "reason": reason}]
        ) from error


def _parse(content: bytes, name: str) -> Sheet:
    sheet = Sheet(name)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        sheet.blame("it is not UTF-8 text", "line", line)
        sheet.refuse_if_faulty()
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        _fill(sheet, reader)
    except csv.Error as error:
        sheet.blame(f"it is not CSV: {error}", "line", reader.line_num)
    if not sheet.rows and not sheet.issues:
        sheet.blame("it has no rows", "file")
    return sheet


def _fill(sheet: Sheet, reader: Any) -> None:
    sheet.header = [column.strip() for column in next(reader, [])]
    for column in sorted({c for c in sheet.header if sheet.header.count(c) > 1}):
        sheet.blame(f"column {column or '(without a name)'} stands twice", "header", column)
    for row in reader:
        if not any(row):
            continue
        if len(row) != len(sheet.header):
            reason = f"{len(row)} values for {len(sheet.header)} columns"
            sheet.blame(reason, "line", reader.line_num)
            continue
        values = dict(zip(sheet.header, (value.strip() for value in row), strict=True))
        sheet.rows.append((reader.line_num, values))


def _told(issue: Issue) -> str:
    where = " ".join(str(part) for part in issue["loc"] if part != "header")
    return f"{where}: {issue['reason']}" if issue["loc"][:1] == ["line"] else str(issue["reason"])
