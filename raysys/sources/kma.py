"""Hourly observations of the Korea Meteorological Administration (ASOS, data.go.kr 15057210).

How its answers are read is in `kma_format`; what is asked and what an error means is here.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import httpx

from raysys.errors import InvalidInput, SourceError
from raysys.records import Window
from raysys.settings import Settings
from raysys.sources import kma_format
from raysys.sources.api import Api
from raysys.sources.kma_format import Answer

if TYPE_CHECKING:
    import pandas as pd

PATH = "AsosHourlyInfoService/getWthrDataList"
ROWS = 999  # the most that a page may have
CHECK_KEY = (
    "Check RAYSYS_KMA_SERVICE_KEY and that its account may use AsosHourlyInfoService; "
    "a fresh key takes 1 to 2 hours to work."
)
ADVICE = {
    **dict.fromkeys(("20", "30", "31", "33", "401", "403"), CHECK_KEY),
    **dict.fromkeys(("12", "404"), "Check RAYSYS_KMA_BASE_URL."),
    **dict.fromkeys(("10", "11"), "Check RAYSYS_ATMOS_STATION and the dates."),
    "32": "Register the address of this machine with the key on data.go.kr.",
}
YESTERDAY = "It gives hours up to yesterday (KST): see RAYSYS_KMA_PUBLICATION_HOUR."


class Kma:
    """The hours of one ASOS station; `name` and the rest are for servers that imitate it."""

    zone = ZoneInfo("Asia/Seoul")
    window_hours = ROWS

    def __init__(
        self,
        settings: Settings,
        *,
        name: str = "kma",
        base_url: str | None = None,
        service_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.name = name
        self.series = f"{name}-{settings.atmos_station}"
        self._station = settings.atmos_station
        self._publication_hour = settings.kma_publication_hour
        url = base_url or settings.kma_base_url
        key = service_key or settings.kma_service_key.get_secret_value()
        if not key and "data.go.kr" in url:
            raise InvalidInput(
                "KMA wants a service key: set RAYSYS_KMA_SERVICE_KEY to the one of your account on "
                "data.go.kr, or RAYSYS_ATMOS_SOURCE to open-meteo or sample.",
                source=name,
            )
        # The site shows a key in two forms; the one for URLs must not be encoded a second time.
        secrets = {"serviceKey": unquote(key) if "%" in key else key}
        self._api = Api(name, url, settings, secrets=secrets, transport=transport)

    def last_hour(self, now: datetime) -> datetime:
        """Return 23:00 KST of yesterday, or of the day before until yesterday is published."""
        local = now.astimezone(self.zone)
        days = 1 if local.hour >= self._publication_hour else 2
        last = datetime.combine(local.date() - timedelta(days=days), time(23), self.zone)
        return last.astimezone(now.tzinfo)

    def fetch(self, window: Window) -> pd.DataFrame:
        """Return the hours of `window` as HourlySource says.

        That there is nothing is believed when said twice: a gateway in trouble says it too.
        """
        try:
            items = self._items(window) or self._items(window)
        except SourceError as error:
            error.fields["window"] = {"start": window.start, "end": window.end}
            raise
        return kma_format.frame(items, self.zone)

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def _items(self, window: Window) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        page = 1
        while True:
            answer = self._api.ask(PATH, self._query(window, page), self._reader(len(items)))
            items += answer.items
            if answer.total is None or len(items) >= answer.total:
                return items
            page += 1

    def _query(self, window: Window, page: int) -> dict[str, str | int]:
        start, end = (t.astimezone(self.zone) for t in (window.start, window.end))
        return {
            "pageNo": page,
            "numOfRows": ROWS,
            "dataType": "JSON",
            "dataCd": "ASOS",
            "dateCd": "HR",
            "startDt": f"{start:%Y%m%d}",
            "startHh": f"{start:%H}",
            "endDt": f"{end:%Y%m%d}",
            "endHh": f"{end:%H}",
            "stnIds": self._station,
        }

    def _reader(self, known: int) -> Callable[[httpx.Response], Answer]:
        """Return what reads the next page after `known` items."""

        def read(response: httpx.Response) -> Answer:
            answer = self._checked(response)
            left = (answer.total or 0) - known
            if len(answer.items) < min(left, max(1, answer.page_rows or ROWS)):
                raise self._api.busy(f"it gave {len(answer.items)} of {left} items", "cut")
            return answer

        return read

    def _checked(self, response: httpx.Response) -> Answer:
        """Return a good answer, or one without items for `no data`; raise what any other means."""
        answer = kma_format.read(response.text)
        status = response.status_code
        if status == httpx.codes.OK or (status < 500 and answer.code in kma_format.MEANINGS):
            if answer.code in (kma_format.NORMAL, kma_format.NO_DATA):
                return answer
            raise self._error(answer)
        if str(status) in ADVICE:
            raise self._api.refused(f"HTTP {status}", str(status), ADVICE[str(status)])
        self._api.check_status(response)
        raise AssertionError("unreachable: the status was not 200")

    def _error(self, answer: Answer) -> SourceError:
        meaning = kma_format.MEANINGS.get(answer.code, "")
        seen = f"{answer.code} {answer.said or meaning}"
        if answer.code in kma_format.QUOTA:
            return self._api.exhausted(seen, answer.code)
        if answer.code == kma_format.UNKNOWN and "전날" in answer.said:
            return self._api.refused(seen, answer.code, YESTERDAY)  # its only use with a cause
        if answer.code in kma_format.REFUSED or answer.code in ADVICE:
            return self._api.refused(seen, answer.code, ADVICE.get(answer.code, ""))
        return self._api.busy(seen, answer.code)
