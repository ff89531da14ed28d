"""Times are aware UTC on their way in and out."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from raysys.store.tables import UTC

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def test_time_is_stored_as_utc() -> None:
    stored = UTC().process_bind_param(NOON.astimezone(ZoneInfo("Asia/Seoul")), None)
    assert stored == NOON
    assert stored.tzinfo is dt.UTC


def test_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        UTC().process_bind_param(NOON.replace(tzinfo=None), None)


@pytest.mark.parametrize("value", [NOON, NOON.replace(tzinfo=None), None])
def test_time_comes_back_aware(value: dt.datetime | None) -> None:
    assert UTC().process_result_value(value, None) == (NOON if value else None)
