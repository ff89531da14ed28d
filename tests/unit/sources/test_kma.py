"""KMA's client against a server that speaks its format and fails in all its ways."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from raysys.errors import InvalidInput, QuotaExhausted, SourceBusy, SourceError
from raysys.records import Window
from raysys.settings import Settings
from raysys.sources.kma import Kma
from tests.kma import CODES, Item, KmaServer

KST = dt.timezone(dt.timedelta(hours=9))
FIRST = dt.datetime(2026, 3, 1, tzinfo=KST)
ALWAYS: Callable[[str], Callable[[int], str]] = lambda fault: lambda _: fault  # noqa: E731
FATAL = ("10", "11", "12", "20", "30", "31", "32", "33")
PASSING = ("01", "02", "04", "05", "21")


def window(hours: int, start: dt.datetime = FIRST) -> Window:
    first = start.astimezone(dt.UTC)
    return Window(start=first, end=first + dt.timedelta(hours=hours - 1))


def ask(
    station: Mapping[dt.datetime, Item],
    settings: Settings,
    hours: int = 24,
    faults: Any = None,
) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Return what the client makes of `hours` hours, and what it asked."""
    with KmaServer(
        station, faults=faults, service_key="ab+/c==", today=lambda: dt.date(2026, 6, 1)
    ) as server:
        source = Kma(settings.model_copy(update={"kma_base_url": server.url}))
        try:
            return source.fetch(window(hours)), server.queries
        finally:
            source.close()
            ask.queries = server.queries  # type: ignore[attr-defined]


def asked() -> int:
    return len(ask.queries)  # type: ignore[attr-defined]


def test_hours_are_read_as_utc_with_values_as_written(station: Any, kma_settings: Settings) -> None:
    frame, queries = ask(station, kma_settings)
    assert len(frame) == 24
    assert frame["time"].dtype == "datetime64[ns, UTC]"
    assert frame["time"][0] == pd.Timestamp(2026, 2, 28, 15, tz="UTC")
    assert frame["key"][0] == "2026-03-01 00:00"
    assert frame["temperature"][0] == "-5.5"
    assert frame["precipitation"][:4].tolist() == ["0", "0", "0", "1.5"]
    assert frame["sea_pressure"].isna().all()
    assert frame["raw"][0]["stnNm"] == "서울"
    assert {k: v for k, v in queries[0].items() if k != "serviceKey"} == {
        "pageNo": "1",
        "numOfRows": "999",
        "dataType": "JSON",
        "dataCd": "ASOS",
        "dateCd": "HR",
        "startDt": "20260301",
        "startHh": "00",
        "endDt": "20260301",
        "endHh": "23",
        "stnIds": "108",
    }


@pytest.mark.parametrize("form", ["ab+/c==", "ab%2B%2Fc%3D%3D"], ids=["decoded", "encoded"])
def test_key_is_encoded_once_in_either_form(
    form: str, station: Any, kma_settings: Settings
) -> None:
    from pydantic import SecretStr

    settings = kma_settings.model_copy(update={"kma_service_key": SecretStr(form)})
    with KmaServer(station, today=lambda: dt.date(2026, 6, 1)) as server:
        source = Kma(settings.model_copy(update={"kma_base_url": server.url}))
        source.fetch(window(1))
        source.close()
        assert server.raw_queries[0].endswith("serviceKey=ab%2B%2Fc%3D%3D")


def test_pages_are_read_until_all_are_there(station: Any, kma_settings: Settings) -> None:
    frame, queries = ask(station, kma_settings, hours=1300)
    assert len(frame) == frame["time"].nunique() == 1299  # one hour is absent
    assert [q["pageNo"] for q in queries] == ["1", "2"]


@pytest.mark.parametrize(
    "fault",
    [
        *(f"json_{code}" for code in PASSING),
        *(f"xml_{code}" for code in PASSING),
        *("http_500", "http_502_html", "html_200", "timeout", "truncated", "truncated_json"),
        *("empty", "not_an_envelope", "items_missing", "json_99"),
        *("no_data", "no_data_empty_body", "no_data_items_text", "no_data_items_list"),
    ],
)
def test_failure_that_passes_is_asked_again(
    fault: str, station: Any, kma_settings: Settings
) -> None:
    frame, queries = ask(station, kma_settings, faults={1: fault})
    assert len(frame) == 24
    assert len(queries) == 2


@pytest.mark.parametrize("fault", ["json_01", "http_500", "timeout", "truncated", "html_200"])
def test_failure_that_stays_is_busy_after_the_last_attempt(
    fault: str, station: Any, kma_settings: Settings
) -> None:
    with pytest.raises(SourceBusy, match="kma failed for now") as caught:
        ask(station, kma_settings, faults=ALWAYS(fault))
    assert asked() == 3
    assert caught.value.fields["source"] == "kma"
    assert caught.value.fields["window"]["start"] == window(24).start


@pytest.mark.parametrize("fault", ["json_22", "xml_22", "gateway_json_22", "http_429"])
def test_used_up_quota_is_not_asked_again(fault: str, station: Any, kma_settings: Settings) -> None:
    with pytest.raises(QuotaExhausted, match="quota is used up"):
        ask(station, kma_settings, faults=ALWAYS(fault))
    assert asked() == 1


@pytest.mark.parametrize(
    "fault",
    [
        *(f"json_{code}" for code in FATAL),
        *(f"xml_{code}" for code in FATAL),
        *(f"gateway_json_{code}" for code in FATAL),
        *("http_403", "unauthorized", "unauthorized_200", "previous_day_only"),
    ],
)
def test_refusal_is_not_asked_again(fault: str, station: Any, kma_settings: Settings) -> None:
    with pytest.raises(SourceError, match="kma refused") as caught:
        ask(station, kma_settings, faults=ALWAYS(fault))
    assert type(caught.value) is SourceError
    assert asked() == 1
    code = fault.rsplit("_", 1)[-1]
    if code in CODES:
        assert caught.value.fields["code"] == code
        assert CODES[code] in str(caught.value)


@pytest.mark.parametrize("fault", ["json_30", "xml_30", "gateway_json_30", "unauthorized"])
def test_bad_key_names_the_setting_and_the_wait(
    fault: str, station: Any, kma_settings: Settings
) -> None:
    with pytest.raises(SourceError, match=r"RAYSYS_KMA_SERVICE_KEY.*1 to 2 hours"):
        ask(station, kma_settings, faults=ALWAYS(fault))


@pytest.mark.parametrize(
    "fault", ["no_data", "no_data_empty_body", "no_data_items_text", "no_data_items_list"]
)
def test_no_data_said_twice_is_an_empty_frame(
    fault: str, station: Any, kma_settings: Settings
) -> None:
    frame, queries = ask(station, kma_settings, faults=ALWAYS(fault))
    assert frame.empty
    assert len(queries) == 2
    assert frame["time"].dtype == "datetime64[ns, UTC]"


def test_single_item_may_come_without_its_list(station: Any, kma_settings: Settings) -> None:
    frame, _ = ask(station, kma_settings, hours=1, faults=ALWAYS("single_object"))
    assert frame["temperature"].tolist() == ["-5.5"]


def test_empty_field_is_a_missing_value(station: Any, kma_settings: Settings) -> None:
    frame, _ = ask(station, kma_settings, faults=ALWAYS("empty_field"))
    assert frame["wind_speed"].isna().tolist() == [True] + [False] * 23


@pytest.mark.parametrize(
    ("item", "column", "value"),
    [
        ({"rn": "", "rnQcflg": ""}, "precipitation", "0"),
        ({"rn": "", "rnQcflg": "9"}, "precipitation", "0"),
        ({"rn": "", "rnQcflg": "1"}, "precipitation", None),
        ({"rn": "2.5", "rnQcflg": ""}, "precipitation", "2.5"),
        ({"ta": "3.6", "taQcflg": "1"}, "temperature", None),
        ({"ta": "3.6", "taQcflg": "9"}, "temperature", None),
        ({"ta": "", "taQcflg": ""}, "temperature", None),
        ({"ta": None}, "temperature", None),
        ({"ta": 0}, "temperature", "0"),
    ],
)
def test_flags_decide_what_a_blank_means(
    item: dict[str, Any], column: str, value: str | None
) -> None:
    from raysys.sources import kma_format

    frame = kma_format.frame([{"tm": "2026-03-01 00:00", **item}], Kma.zone)
    assert frame[column].tolist() == [value]


def test_recorded_answer_is_understood(shared_data: Path) -> None:
    from raysys.sources import kma_format

    answer = kma_format.read((shared_data / "kma" / "kma_success_one_item.json").read_text())
    assert (answer.code, answer.total, len(answer.items)) == ("00", 1, 1)
    row = kma_format.frame(answer.items, Kma.zone).iloc[0]
    assert row["time"] == pd.Timestamp(2019, 1, 19, 16, tz="UTC")
    values = [row[c] for c in ("temperature", "precipitation", "wind_direction", "humidity")]
    assert values == ["3.6", "0", "290", "76"]
    for name, code in {"gateway_22.xml": "22", "gateway_30.xml": "30", "nodata.json": "03"}.items():
        assert kma_format.read((shared_data / "kma" / f"kma_{name}").read_text()).code == code


def test_unreadable_time_is_left_to_validation() -> None:
    from raysys.sources import kma_format

    frame = kma_format.frame([{"tm": "yesterday", "ta": "1"}], Kma.zone)
    assert frame["time"].isna().all()
    assert frame["key"].tolist() == ["yesterday"]


@pytest.mark.parametrize(
    ("hour", "day"), [(10, 13), (11, 14), (23, 14), (0, 13)], ids=lambda v: str(v)
)
def test_yesterday_is_published_at_eleven(hour: int, day: int, kma_settings: Settings) -> None:
    now = dt.datetime(2026, 3, 15, hour, 30, tzinfo=KST)
    source = Kma(kma_settings.model_copy(update={"kma_base_url": "http://127.0.0.1:1"}))
    assert source.last_hour(now) == dt.datetime(2026, 3, day, 23, tzinfo=KST)
    source.close()


def test_real_service_without_a_key_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="RAYSYS_KMA_SERVICE_KEY"):
        Kma(Settings(home=tmp_path, kma_service_key=""))


def test_key_is_in_no_log_and_no_error(
    station: Any, kma_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Even where a library logs or raises with its URL, and where the server repeats the key."""
    import structlog

    out = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(out))
    told = []

    def echo(request: httpx.Request) -> httpx.Response:
        key = request.url.params["serviceKey"]
        header = {"resultCode": "10", "resultMsg": f"wrong {key} in {request.url}"}
        return httpx.Response(200, content=json.dumps({"response": {"header": header}}))

    caplog.set_level(logging.DEBUG)
    try:
        for fault in ("timeout", "truncated", "http_500", "json_30", "unauthorized"):
            with pytest.raises(SourceError) as caught:
                ask(station, kma_settings, faults=ALWAYS(fault))
            told += [*traceback.format_exception(caught.value), str(caught.value.fields)]
        unreachable = kma_settings.model_copy(update={"kma_base_url": "http://127.0.0.1:1"})
        for source in (Kma(unreachable), Kma(unreachable, transport=httpx.MockTransport(echo))):
            with pytest.raises(SourceError) as caught:
                source.fetch(window(1))
            told += traceback.format_exception(caught.value)
            source.close()
    finally:
        structlog.reset_defaults()
    everything = "\n".join([*told, caplog.text, out.getvalue()])
    assert "retry" in everything
    for form in ("ab+/c==", "ab%2B%2Fc%3D%3D", "ab%2B/c%3D%3D"):
        assert form not in everything
