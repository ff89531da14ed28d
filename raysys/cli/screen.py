"""What a command shows: tables for people, JSON for programs, one way to end with an error. No command is here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raysys.errors import InvalidInput, RaysysError
from raysys.records import plain

# What is not a terminal has no width of its own: tables are as wide as their words, for grep.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 240)
err = Console(highlight=False, soft_wrap=True, stderr=True)


def say(text: str) -> None:
    """Print a line; what users typed is never read as markup."""
    out.print(escape(text))


def note(text: str) -> None:
    """Print a line beside the result, to standard error."""
    err.print(escape(text))


def show_json(value: Any) -> None:
    """Print records, or plain data, as one JSON document."""
    sys.stdout.write(json.dumps(plain(value), indent=2, default=str, ensure_ascii=False) + "\n")


def show_rows(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str
) -> None:
    """Print rows as a table with `title`, or the sentence `empty` when there is none."""
    if not rows:
        out.print(escape(empty))
        return
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        # An id or a time that is broken over lines cannot be copied.
        table.add_column(column, overflow="fold", no_wrap=column == "id" or "(UTC)" in column)
    for row in rows:
        table.add_row(*(escape(text(value)) for value in row))
    out.print(table)


def text(value: Any) -> str:
    """Return a cell's text: times to the second in UTC, numbers with four digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(text(v) for v in value)
    return str(value)


def show_error(error: RaysysError) -> None:
    """Print an error's message and every fault that it names."""
    err.print(f"[bold red]error:[/] {escape(error.message)}")
    if isinstance(error, InvalidInput):
        for issue in error.issues[:50]:
            where = ".".join(str(part) for part in issue.get("loc", []))
            note(f"  {where}: {issue.get('reason', '')}")
        if len(error.issues) > 50:
            err.print(f"  and {len(error.issues) - 50} more")


@contextmanager
def working(message: str) -> Iterator[Any]:
    """Show what is being waited for: a spinner with the latest message on a terminal, a line a message elsewhere."""
    if err.is_terminal:
        with err.status(escape(message)) as status:
            yield lambda line: status.update(escape(line))
        return
    last = [""]

    def line(message: str) -> None:
        if message != last[0]:
            last[0] = message
            note(message)

    line(message)
    yield line
