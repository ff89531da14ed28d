"""A stand-in for KMA's hourly service: replays a CSV in its wire format and fails on demand.

    python -m tests.kma --csv FILE --port N [--faults transient]

Nothing of raysys is used here, so that a mistake there is not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

PATH = "/AsosHourlyInfoService/getWthrDataList"
KST = timezone(timedelta(hours=9))
MOST_ROWS = 999
HOUR = timedelta(hours=1)
COMPASS = [
    "N",
    "NNE",
    "NE",
    "ENE",
    "E",
    "ESE",
    "SE",
    "SSE",
    "S",
    "SSW",
    "SW",
    "WSW",
    "W",
    "WNW",
    "NW",
    "NNW",
]
BLANK = [
    "pv",
    "td",
    "hm",
    "hmQcflg",
    "ss",
    "ssQcflg",
    "icsr",
    "dsnw",
    "hr3Fhsc",
    "dc10Tca",
    "dc10LmcsCa",
    "clfmAbbrCd",
    "lcsCh",
    "vs",
    "gndSttCd",
    "dmstMtphNo",
    "ts",
    "tsQcflg",
    "m005Te",
    "m01Te",
    "m02Te",
    "m03Te",
]
CODES = {
    "01": "APPLICATION_ERROR",
    "02": "DB_ERROR",
    "03": "NO_DATA",
    "04": "HTTP_ERROR",
    "05": "SERVICETIMEOUT_ERROR",
    "10": "INVALID_REQUEST_PARAMETER_ERROR",
    "11": "NO_MANDATORY_REQUEST_PARAMETERS_ERROR",
    "12": "NO_OPENAPI_SERVICE_ERROR",
    "20": "SERVICE_ACCESS_DENIED_ERROR",
    "21": "TEMPORARILY_DISABLE_THE_SERVICEKEY_ERROR",
    "22": "LIMITED_NUMBER_OF_SERVICE_REQUESTS_EXCEEDS_ERROR",
    "30": "SERVICE_KEY_IS_NOT_REGISTERED_ERROR",
    "31": "DEADLINE_HAS_EXPIRED_ERROR",
    "32": "UNREGISTERED_IP_ERROR",
    "33": "UNSIGNED_CALL_ERROR",
    "99": "UNKNOWN_ERROR",
}

Item = dict[str, str]
Answer = tuple[int, str, bytes]  # status, content type, body
JSON_TYPE, XML_TYPE, TEXT_TYPE = "application/json;charset=UTF-8", "text/xml", "text/plain"


# -- what the station measured ---------------------------------------------------------------------


def read_station(path: Path) -> dict[datetime, Item]:
    """Return the items of a CSV with time,tmp,precip,wd,ws,p,dewp by their local hour."""
    with path.open(newline="") as file:
        return {datetime.fromisoformat(row["time"]): make_item(row) for row in csv.DictReader(file)}


def make_item(row: Mapping[str, str]) -> Item:
    """Return one hour as KMA writes it: every field a text, and an empty one where it is missing."""
    dry = float(row.get("precip") or 0) == 0
    wind = row.get("wd", "")
    degrees = str(round(COMPASS.index(wind) * 22.5 / 10) * 10) if wind in COMPASS else ""
    return {
        "tm": row["time"],
        "rnum": "1",
        "stnId": "108",
        "stnNm": "서울",
        "ta": row.get("tmp", ""),
        "taQcflg": "" if row.get("tmp") else "9",
        "rn": "" if dry else row["precip"],
        "rnQcflg": "9" if dry else "",
        "ws": row.get("ws", ""),
        "wsQcflg": "",
        "wd": degrees,
        "wdQcflg": "",
        "pa": row.get("p", ""),
        "paQcflg": "",
        "ps": "",
        "psQcflg": "9",
        **dict.fromkeys(BLANK, ""),
        "td": row.get("dewp", ""),
    }


# -- answers, good and bad -------------------------------------------------------------------------


def envelope(code: str, said: str = "", body: Any = None) -> Answer:
    """Return an answer of the service itself."""
    header = {"resultCode": code, "resultMsg": said or CODES.get(code, "")}
    response = {"header": header} if body is None else {"header": header, "body": body}
    return 200, JSON_TYPE, json.dumps({"response": response}, ensure_ascii=False).encode()


def gateway_xml(code: str, status: int = 200) -> Answer:
    """Return an answer of the gateway, which is XML whatever was asked for."""
    text = (
        "<OpenAPI_ServiceResponse>\n  <cmmMsgHeader>\n    <errMsg>SERVICE ERROR</errMsg>\n"
        f"    <returnAuthMsg>{CODES[code]}</returnAuthMsg>\n"
        f"    <returnReasonCode>{code}</returnReasonCode>\n"
        "  </cmmMsgHeader>\n</OpenAPI_ServiceResponse>\n"
    )
    return status, XML_TYPE, text.encode()


def gateway_json(code: str, status: int = 403) -> Answer:
    """Return an answer of the newer gateway."""
    header = {"errMsg": "SERVICE ERROR", "returnAuthMsg": CODES[code], "returnReasonCode": code}
    text = json.dumps({"OpenAPI_ServiceResponse": {"cmmMsgHeader": header}})
    return status, JSON_TYPE, text.encode()


def page(items: list[Item], number: int, rows: int) -> Answer:
    """Return one page of `items`."""
    if not items:
        return envelope("03")
    rows = min(rows, MOST_ROWS)
    shown = items[(number - 1) * rows : number * rows]
    body = {"dataType": "JSON", "items": {"item": shown}, "pageNo": number, "numOfRows": rows}
    return envelope("00", "NORMAL_SERVICE", {**body, "totalCount": len(items)})


def _changed(answer: Answer, change: Callable[[Any], Any]) -> Answer:
    status, kind, content = answer
    whole = json.loads(content)
    body = whole["response"].get("body")
    if body:
        change(body)
    return status, kind, json.dumps(whole, ensure_ascii=False).encode()


def _without_a_field(body: Any) -> None:
    item = body["items"]["item"][0]
    item["ws"] = ""


def _half_the_items(body: Any) -> None:
    body["items"]["item"] = body["items"]["item"][: len(body["items"]["item"]) // 2]


def _single_object(body: Any) -> None:
    if len(body["items"]["item"]) == 1:
        body["items"]["item"] = body["items"]["item"][0]


Fault = Callable[[Answer], Answer]
FAULTS: dict[str, Fault] = {
    **{f"json_{code}": (lambda _, code=code: envelope(code)) for code in CODES},
    **{f"xml_{code}": (lambda _, code=code: gateway_xml(code)) for code in CODES},
    **{f"gateway_json_{code}": (lambda _, code=code: gateway_json(code)) for code in CODES},
    "previous_day_only": lambda _: envelope("99", "전날 자료까지 제공됩니다."),
    "unauthorized": lambda _: (401, TEXT_TYPE, b"Unauthorized"),
    "unauthorized_200": lambda _: (200, TEXT_TYPE, b"Unauthorized"),
    "no_data": lambda _: envelope("03"),
    "no_data_empty_body": lambda _: envelope("03", body={}),
    "no_data_items_text": lambda _: envelope(
        "00", "NORMAL_SERVICE", {"items": "", "totalCount": 0}
    ),
    "no_data_items_list": lambda _: envelope("00", body={"items": {"item": []}, "totalCount": 0}),
    "single_object": lambda good: _changed(good, _single_object),
    "http_500": lambda _: (500, TEXT_TYPE, b"Internal Server Error"),
    "http_502_html": lambda _: (502, "text/html", b"<html><body>Bad Gateway</body></html>"),
    "html_200": lambda _: (200, "text/html", b"<html><body>maintenance</body></html>"),
    "http_429": lambda _: (429, TEXT_TYPE, b"Too Many Requests"),
    "http_403": lambda _: (403, TEXT_TYPE, b"Forbidden"),
    "empty": lambda _: (200, JSON_TYPE, b""),
    "not_an_envelope": lambda _: (200, JSON_TYPE, b"[1, 2]"),
    "items_missing": lambda good: _changed(good, _half_the_items),
    "empty_field": lambda good: _changed(good, _without_a_field),
    "truncated_json": lambda good: (good[0], good[1], good[2][: len(good[2]) // 2]),
    "truncated": lambda good: good,  # the connection is cut in the middle: see the handler
    "timeout": lambda good: good,  # nothing comes: see the handler
}
# What passes when asked again. In this order, one at every third request.
TRANSIENT = (
    *("json_01", "http_500", "json_02", "timeout", "json_04", "truncated", "json_05", "no_data"),
    *("empty_field", "xml_04", "html_200", "truncated_json", "items_missing", "http_502_html"),
    *("json_21", "no_data_items_text", "empty", "no_data_empty_body", "no_data_items_list"),
)


def transient(request: int) -> str | None:
    """Return the fault of a request (1, 2, 3, ...) such that asking again always helps."""
    number, rest = divmod(request, 3)
    return TRANSIENT[(number - 1) % len(TRANSIENT)] if number and rest == 0 else None


# -- the server ------------------------------------------------------------------------------------


class KmaServer:
    """The service on a free port (or `port`) of the loopback, with what was asked in `queries`.

    `faults` names the fault of a request by its number, from 1, or is a function that does.
    """

    def __init__(
        self,
        station: Mapping[datetime, Item],
        *,
        faults: Mapping[int, str] | Callable[[int], str | None] | None = None,
        service_key: str | None = None,
        port: int = 0,
        today: Callable[[], date] = lambda: datetime.now(KST).date(),
    ) -> None:
        self.station = station
        self.service_key = service_key
        self.queries: list[dict[str, str]] = []
        self.raw_queries: list[str] = []
        self.today = today
        self._fault_of = faults if callable(faults) else dict(faults or {}).get
        self._lock = threading.Lock()
        self.stopped = threading.Event()
        handler = type("Handler", (_Handler,), {"service": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """The base URL, as RAYSYS_KMA_BASE_URL wants it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> KmaServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, raw_query: str) -> tuple[Answer, str | None]:
        """Return the answer to a query and the fault in it."""
        query = {name: values[0] for name, values in parse_qs(raw_query).items()}
        with self._lock:
            self.queries.append(query)
            self.raw_queries.append(raw_query)
            fault = self._fault_of(len(self.queries))
        good = self._good(query)
        return (FAULTS[fault](good) if fault else good), fault

    def _good(self, query: dict[str, str]) -> Answer:
        if self.service_key is not None and query.get("serviceKey") != self.service_key:
            return gateway_xml("30")
        if query.get("dataCd") != "ASOS" or query.get("dateCd") != "HR":
            return envelope("10")
        if query.get("dataType") != "JSON":
            return gateway_xml("10")  # the real one gives items in XML; nobody here reads them
        try:
            start, end = (datetime.fromisoformat(_hour(query, s)) for s in ("start", "end"))
            number, rows = int(query["pageNo"]), int(query.get("numOfRows", 10))
        except (KeyError, ValueError):
            return envelope("11")
        if end.date() >= self.today():
            return FAULTS["previous_day_only"](envelope("00"))
        hours = (start + i * HOUR for i in range(int((end - start) / HOUR) + 1))
        return page([self.station[h] for h in hours if h in self.station], number, rows)


def _hour(query: Mapping[str, str], side: str) -> str:
    return f"{query[f'{side}Dt']}T{query[f'{side}Hh']}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets: the second waited 40 ms
    service: KmaServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path != PATH:
            self.send_error(404)
            return
        (status, kind, body), fault = self.service.answer(url.query)
        if fault == "timeout":
            self.service.stopped.wait(60)
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "truncated" else body)
        self.close_connection = fault == "truncated"

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--faults", choices=("none", "transient"), default="none")
    given = parser.parse_args()
    faults = transient if given.faults == "transient" else None
    with KmaServer(read_station(given.csv), faults=faults, port=given.port) as server:
        sys.stdout.write(f"serving {given.csv.name} at {server.url}\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            server.stopped.wait()


if __name__ == "__main__":
    main()
