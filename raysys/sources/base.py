"""What a source of hourly weather is; how one is asked is in the module of that source."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Protocol
from zoneinfo import ZoneInfo

from raysys.records import Window

if TYPE_CHECKING:
    import pandas as pd


class HourlySource(Protocol):
    """A station's hours, asked for by window. Close it after use."""

    @property
    def name(self) -> str:
        """The name that rows and ledger entries carry."""

    @property
    def series(self) -> str:
        """The series that the hours belong to."""

    @property
    def zone(self) -> ZoneInfo:
        """The zone whose calendar the ledger's days follow."""

    @property
    def window_hours(self) -> int:
        """The most hours that one request may ask for."""

    def last_hour(self, now: datetime) -> datetime:
        """Return the last hour that is published at `now`, aware UTC."""

    def fetch(self, window: Window) -> pd.DataFrame:
        """Return the hours of `window` that the source has, unjudged and in its own order.

        Columns: `key` (the time as the source writes it), `time` (datetime64[ns, UTC], NaT where it
        is unreadable), the WEATHER_COLUMNS (text or numbers, None where missing) and `raw` (dict).
        Raises SourceBusy after the last attempt, QuotaExhausted, or SourceError.
        """

    def close(self) -> None:
        """Close the connection."""
