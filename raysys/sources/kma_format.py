"""What answers in KMA's format say: code, items, values; nothing is asked for here.

Shapes and codes are those of the service's guide, of recorded answers and of its gateway, which
answers in XML or plain text whatever was asked for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import msgspec

from raysys.records import Record

if TYPE_CHECKING:
    import pandas as pd

NORMAL, NO_DATA, UNKNOWN = "00", "03", "99"
BUSY = {
    "01": "APPLICATION_ERROR",
    "02": "DB_ERROR",
    "04": "HTTP_ERROR",
    "05": "SERVICETIMEOUT_ERROR",
    "21": "TEMPORARILY_DISABLE_THE_SERVICEKEY_ERROR",
    UNKNOWN: "UNKNOWN_ERROR",
}
QUOTA = {"22": "LIMITED_NUMBER_OF_SERVICE_REQUESTS_EXCEEDS_ERROR"}
REFUSED = {
    "10": "INVALID_REQUEST_PARAMETER_ERROR",
    "11": "NO_MANDATORY_REQUEST_PARAMETERS_ERROR",
    "12": "NO_OPENAPI_SERVICE_ERROR",
    "20": "SERVICE_ACCESS_DENIED_ERROR",
    "30": "SERVICE_KEY_IS_NOT_REGISTERED_ERROR",
    "31": "DEADLINE_HAS_EXPIRED_ERROR",
    "32": "UNREGISTERED_IP_ERROR",
    "33": "UNSIGNED_CALL_ERROR",
}
MEANINGS = {**BUSY, **QUOTA, **REFUSED}
PLAIN_TEXTS = {"unauthorized": "401", "forbidden": "403"}  # said by the gateway, with any status
UNREADABLE = "unreadable"

FIELDS = {
    "temperature": "ta",
    "precipitation": "rn",
    "wind_direction": "wd",
    "wind_speed": "ws",
    "station_pressure": "pa",
    "sea_pressure": "ps",
    "humidity": "hm",
}
ERROR_FLAG, MISSING_FLAG = "1", "9"
XML_CODE = re.compile(r"<(?:returnReasonCode|resultCode)>\s*(\w+)\s*<")
XML_TEXT = re.compile(r"<(?:returnAuthMsg|resultMsg|errMsg)>\s*([^<]*?)\s*<")


class Answer(Record, frozen=True, kw_only=True):
    """One answer: its result code, what it said, and for a good one its items.

    `total` counts the items of all pages and `page_rows` those that a page may have, when given.
    """

    code: str
    said: str = ""
    items: list[dict[str, Any]] = []
    total: int | None = None
    page_rows: int | None = None


def read(text: str) -> Answer:
    """Return what the body of an answer says; one without sense has the code UNREADABLE."""
    stripped = text.strip()
    if stripped.startswith("<"):
        return _from_xml(stripped)
    if stripped.split(" ", 1)[0].lower() in PLAIN_TEXTS:
        return Answer(code=PLAIN_TEXTS[stripped.split(" ", 1)[0].lower()], said=stripped[:40])
    try:
        return _from_json(msgspec.json.decode(stripped))
    except msgspec.DecodeError:
        return _unreadable("its answer is not JSON" if stripped else "its answer is empty")


def _from_xml(text: str) -> Answer:
    code = XML_CODE.search(text)
    said = XML_TEXT.findall(text)
    if code is None:
        return _unreadable("its answer is a page without a result code")
    return _answer(code.group(1), said[-1] if said else "")


def _from_json(envelope: Any) -> Answer:
    gateway = _at(envelope, "OpenAPI_ServiceResponse", "cmmMsgHeader")
    if isinstance(gateway, dict):
        return _answer(gateway.get("returnReasonCode"), gateway.get("returnAuthMsg"))
    header = _at(envelope, "response", "header")
    if not isinstance(header, dict):
        return _unreadable("its answer has no header")
    answer = _answer(header.get("resultCode"), header.get("resultMsg"))
    body = _at(envelope, "response", "body")
    return _with_items(answer, body) if answer.code == NORMAL and isinstance(body, dict) else answer


def _with_items(answer: Answer, body: dict[str, Any]) -> Answer:
    """Add the items, which come as a list, as one object, or as an empty text or list for none."""
    item = _at(body, "items", "item") or []
    items = [item] if isinstance(item, dict) else item
    if not isinstance(items, list) or not all(isinstance(i, dict) for i in items):
        return _unreadable("the items of its answer are unreadable")
    return msgspec.structs.replace(
        answer,
        items=items,
        total=_whole_number(body.get("totalCount")),
        page_rows=_whole_number(body.get("numOfRows")),
    )


def _answer(code: Any, said: Any) -> Answer:
    if code is None:
        return _unreadable("its answer has no result code")
    return Answer(code=str(code).strip().zfill(2), said=str(said or "").strip())


def _unreadable(said: str) -> Answer:
    return Answer(code=UNREADABLE, said=said)


def _at(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _whole_number(value: Any) -> int | None:
    return int(value) if str(value).isdecimal() else None


def frame(items: list[dict[str, Any]], zone: ZoneInfo) -> pd.DataFrame:
    """Return items as the rows that `HourlySource.fetch` promises; values stay texts."""
    import pandas as pd

    from raysys.store.tables import WEATHER_COLUMNS

    keys = [_text(item, "tm") for item in items]
    times = pd.to_datetime(pd.Series(keys, dtype="str"), format="%Y-%m-%d %H:%M", errors="coerce")
    local = times.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    columns: dict[str, Any] = {
        "key": pd.Series(keys, dtype="object"),
        "time": local.dt.tz_convert("UTC").astype("datetime64[ns, UTC]"),
    }
    for column in WEATHER_COLUMNS:
        columns[column] = pd.Series([_value(i, FIELDS[column]) for i in items], dtype="object")
    return pd.DataFrame({**columns, "raw": pd.Series(items, dtype="object")})


def _value(item: dict[str, Any], field: str) -> str | None:
    """Return a value as it is written, or None where it is missing or flagged as an error."""
    text, flag = _text(item, field), _text(item, f"{field}Qcflg")
    if field == "rn" and not text and flag in ("", MISSING_FLAG):
        return "0"  # rain is left blank in a dry hour, with either flag
    return None if not text or flag in (ERROR_FLAG, MISSING_FLAG) else text


def _text(item: dict[str, Any], field: str) -> str:
    value = item.get(field)
    return "" if value is None else str(value).strip()
