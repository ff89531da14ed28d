"""Records go through JSON and come back."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from raysys.records import CrawlReport, Gap, Snapshot, Window, plain, revive

NOW = dt.datetime(2026, 3, 15, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "record",
    [
        Window(start=NOW, end=NOW),
        Snapshot(
            hash="h",
            family="f",
            uri="u",
            rows=1,
            gaps=[Gap(column="c", start=NOW, end=NOW, hours=1)],
            created_at=NOW,
        ),
        CrawlReport(
            family="f",
            source="s",
            series="x",
            windows=1,
            read=2,
            new=1,
            known=1,
            rejected=0,
            missing_hours=0,
            failed=["a"],
        ),
    ],
    ids=lambda record: type(record).__name__,
)
def test_record_survives_json(record: object) -> None:
    assert revive(json.loads(json.dumps(plain(record))), type(record)) == record


def test_record_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Window(start=NOW, end=NOW).start = NOW  # type: ignore[misc]
