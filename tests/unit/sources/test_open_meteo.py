"""Open-Meteo's client against recorded shapes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from raysys.errors import QuotaExhausted, SourceBusy, SourceError
from raysys.records import Window
from raysys.settings import Settings
from raysys.sources import open_meteo
from raysys.sources.open_meteo import OpenMeteo

START = dt.datetime(2026, 2, 28, 15, tzinfo=dt.UTC)  # midnight in Seoul
WINDOW = Window(start=START, end=START + dt.timedelta(hours=23))


def hourly(count: int = 24, **changed: Any) -> dict[str, Any]:
    values = {name: [1.5] * count for name in open_meteo.FIELDS.values()}
    times = [f"2026-03-01T{hour:02d}:00" for hour in range(count)]
    return {"utc_offset_seconds": 32400, "hourly": {"time": times, **values, **changed}}


def fetch(tmp_path: Path, *answers: httpx.Response) -> tuple[pd.DataFrame, list[httpx.Request]]:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return answers[min(len(requests), len(answers)) - 1]

    settings = Settings(home=tmp_path, source_attempts=3, source_backoff_seconds=0)
    source = OpenMeteo(settings, transport=httpx.MockTransport(answer))
    try:
        return source.fetch(WINDOW), requests
    finally:
        source.close()


def test_local_hours_become_utc(tmp_path: Path) -> None:
    frame, requests = fetch(tmp_path, httpx.Response(200, json=hourly()))
    assert frame["time"].tolist() == pd.date_range(START, periods=24, freq="h").tolist()
    assert frame["temperature"].tolist() == [1.5] * 24
    query = requests[0].url.params
    assert requests[0].url.path == "/v1/archive"
    assert (query["start_date"], query["end_date"]) == ("2026-03-01", "2026-03-01")
    assert (query["timezone"], query["wind_speed_unit"]) == ("Asia/Seoul", "ms")
    assert "temperature_2m" in query["hourly"].split(",")


def test_null_is_missing_and_an_hour_of_nulls_is_absent(tmp_path: Path) -> None:
    changed = {name: [1.5] * 23 + [None] for name in open_meteo.FIELDS.values()}
    changed["temperature_2m"] = [None, *[2.0] * 22, None]
    frame, _ = fetch(tmp_path, httpx.Response(200, json=hourly(**changed)))
    assert len(frame) == 23
    assert pd.isna(frame["temperature"][0])


@pytest.mark.parametrize(
    ("answer", "error", "attempts"),
    [
        (lambda: httpx.Response(429), QuotaExhausted, 1),
        (lambda: httpx.Response(503), SourceBusy, 3),
        (lambda: httpx.Response(200, content=b'{"hourly": {'), SourceBusy, 3),
        (lambda: httpx.Response(200, json=hourly(precipitation=[1.0])), SourceBusy, 3),
        (lambda: httpx.Response(404), SourceError, 1),
    ],
)
def test_failures_are_told_apart(
    answer: Callable[[], httpx.Response], error: type[SourceError], attempts: int, tmp_path: Path
) -> None:
    answers = [answer() for _ in range(3)]
    with pytest.raises(SourceError) as caught:
        fetch(tmp_path, *answers)
    assert type(caught.value) is error


def test_reason_of_a_refusal_is_told(tmp_path: Path) -> None:
    reason = "Parameter 'start_date' is out of allowed range from 2026-07-03 to 2026-10-19"
    refusal = httpx.Response(400, json={"reason": reason, "error": True})
    with pytest.raises(SourceError, match="out of allowed range") as caught:
        fetch(tmp_path, refusal)
    assert caught.value.fields["code"] == "400"


def test_busy_answer_is_asked_again(tmp_path: Path) -> None:
    frame, requests = fetch(tmp_path, httpx.Response(503), httpx.Response(200, json=hourly()))
    assert (len(frame), len(requests)) == (24, 2)
