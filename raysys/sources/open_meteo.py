"""Hourly weather of Open-Meteo's archive, for any place and without a key (CC BY 4.0)."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import httpx
import msgspec

from raysys.errors import SourceError
from raysys.records import Window
from raysys.settings import Settings
from raysys.sources.api import Api
from raysys.store.tables import WEATHER_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

PATH = "v1/archive"
LAG_DAYS = 3  # the archive promises 5 and often has yesterday; hours not yet there come as null
FIELDS = {
    "temperature": "temperature_2m",
    "precipitation": "precipitation",
    "wind_direction": "wind_direction_10m",
    "wind_speed": "wind_speed_10m",
    "station_pressure": "surface_pressure",
    "sea_pressure": "pressure_msl",
    "humidity": "relative_humidity_2m",
}


class OpenMeteo:
    """The hours of one place, from the grid cell that holds it."""

    name = "open-meteo"
    zone = ZoneInfo("Asia/Seoul")
    window_hours = 92 * 24

    def __init__(self, settings: Settings, *, transport: httpx.BaseTransport | None = None) -> None:
        self._place = (settings.atmos_latitude, settings.atmos_longitude)
        self.series = f"{self.name}-{settings.atmos_latitude:.4f}-{settings.atmos_longitude:.4f}"
        self._api = Api(self.name, settings.open_meteo_base_url, settings, transport=transport)

    def last_hour(self, now: datetime) -> datetime:
        """Return 23:00 of the last day that the archive surely has."""
        day = now.astimezone(self.zone).date() - timedelta(days=LAG_DAYS)
        return datetime.combine(day, time(23), self.zone).astimezone(now.tzinfo)

    def fetch(self, window: Window) -> pd.DataFrame:
        """Return the hours of `window` as HourlySource says, but for those without any value."""
        try:
            hourly, offset_seconds = self._api.ask(PATH, self._query(window), self._read)
        except SourceError as error:
            error.fields["window"] = {"start": window.start, "end": window.end}
            raise
        return _frame(hourly, offset_seconds, window)

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def _query(self, window: Window) -> dict[str, str | int]:
        start, end = (t.astimezone(self.zone) for t in (window.start, window.end))
        return {
            "latitude": str(self._place[0]),
            "longitude": str(self._place[1]),
            "start_date": f"{start:%Y-%m-%d}",
            "end_date": f"{end:%Y-%m-%d}",
            "hourly": ",".join(FIELDS.values()),
            "wind_speed_unit": "ms",
            "timezone": str(self.zone),
        }

    def _read(self, response: httpx.Response) -> tuple[dict[str, list[Any]], int]:
        try:
            answer = msgspec.json.decode(response.content)
        except msgspec.DecodeError:
            answer = None
        if isinstance(answer, dict) and answer.get("error") and response.status_code == 400:
            raise self._api.refused(f"400 {answer.get('reason')}", "400", "Check the dates.")
        self._api.check_status(response)
        hourly = answer.get("hourly") if isinstance(answer, dict) else None
        wanted = ("time", *FIELDS.values())
        if not isinstance(hourly, dict) or len({len(hourly.get(n) or ()) for n in wanted}) != 1:
            raise self._api.busy("its answer is unreadable or cut", "unreadable")
        return hourly, int(answer.get("utc_offset_seconds", 0)) if isinstance(answer, dict) else 0


def _frame(hourly: dict[str, list[Any]], offset_seconds: int, window: Window) -> pd.DataFrame:
    import pandas as pd

    local = pd.to_datetime(pd.Series(hourly["time"], dtype="str"), errors="coerce")
    times = (local - pd.Timedelta(seconds=offset_seconds)).dt.tz_localize("UTC")
    frame = pd.DataFrame({"key": hourly["time"], "time": times.astype("datetime64[ns, UTC]")})
    for column in WEATHER_COLUMNS:
        frame[column] = pd.Series(hourly[FIELDS[column]], dtype="object")
    values = frame[list(WEATHER_COLUMNS)]
    frame["raw"] = pd.Series(values.assign(time=frame["key"]).to_dict("records"), dtype="object")
    inside = frame["time"].isna() | frame["time"].between(window.start, window.end)
    return frame[inside & values.notna().any(axis=1)].reset_index(drop=True)
