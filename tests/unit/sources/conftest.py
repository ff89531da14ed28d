"""A station of a few days, and settings that ask it without pauses."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from raysys.settings import Settings
from tests.kma import Item, make_item

START = dt.datetime(2026, 3, 1)  # noqa: DTZ001  local time, as the station writes it


@pytest.fixture(scope="session")
def station() -> dict[dt.datetime, Item]:
    """Sixty days of hours, the second hour of the third day absent."""
    hours = [START + dt.timedelta(hours=i) for i in range(60 * 24) if i != 49]
    return {
        hour: make_item(
            {
                "time": f"{hour:%Y-%m-%d %H:%M}",
                "tmp": f"{hour.hour - 5.5:.1f}",
                "precip": "1.5" if hour.hour == 3 else "0.0",
                "wd": "NNW",
                "ws": "2.5",
                "p": "1007.8",
            }
        )
        for hour in hours
    }


@pytest.fixture
def kma_settings(tmp_path: Path) -> Settings:
    """Settings of a client that is quick to give up."""
    return Settings(
        home=tmp_path,
        kma_service_key="ab+/c==",
        source_timeout_seconds=0.3,
        source_attempts=3,
        source_backoff_seconds=0,
    )
