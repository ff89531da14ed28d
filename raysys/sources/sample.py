"""Invented data for use without a network: a station that speaks KMA's format, insurance rows.

Every hour is a function of the station and the hour alone, the same in any process. Like a real
station it lacks hours, repeats some, and writes -99.9 for a broken sensor.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from raysys.settings import Settings
from raysys.sources.kma import PATH, Kma
from raysys.sources.kma_format import FIELDS

NAME = "sample"
KEY = "sample"
ZONE = ZoneInfo("Asia/Seoul")
HOUR_SECONDS = 3600
YEAR_HOURS = 8766
SEOUL_HOURS = 9

Hours = NDArray[np.int64]
Values = NDArray[np.float64]


# -- weather -------------------------------------------------------------------------------------


def weather(hours: Hours, seed: int) -> dict[str, Values]:
    """Return the weather of `hours` (whole hours since 1970, UTC) by column, unrounded.

    Fronts pass every few days; clouds follow them, and damp the swing between day and night.
    """
    local = hours + SEOUL_HOURS
    front = 2.9 * _wave(hours, 36, seed + 1) + 1.3 * _wave(hours, 13, seed + 2)
    front = front + 0.8 * _wave(hours, 5, seed + 9)
    cloud = 1 / (1 + np.exp(-1.3 * (0.35 * front + 1.1 * _wave(hours, 33, seed + 3))))
    season = np.cos(2 * np.pi * (hours / YEAR_HOURS - 0.54))
    day = np.cos(2 * np.pi * (local % 24 - 14.5) / 24)
    swing = (2.0 + 3.4 * (1 - cloud)) * day
    rain = np.where(cloud > 0.86, 14 * (cloud - 0.86) * (1 + _noise(hours, seed + 4)), 0.0)
    sea = 1016.0 - 8.0 * season - 0.9 * front + 0.3 * _noise(hours, seed + 5)
    angle = 200 + 60 * _wave(hours, 20, seed + 6)
    return {
        "temperature": 12.8 + 13.6 * season + front + swing + 0.25 * _noise(hours, seed + 7),
        "precipitation": np.maximum(rain, 0.0),
        "wind_direction": np.round(angle % 360 / 20) * 20 % 360,
        "wind_speed": np.abs(2.1 + 1.1 * _wave(hours, 9, seed + 8) + 0.5 * day),
        "station_pressure": sea - 10.6,
        "sea_pressure": sea,
        "humidity": np.clip(48 + 14 * season + 34 * (cloud - 0.4) - 1.6 * swing, 12, 100),
    }


def _wave(hours: Hours, period: int, seed: int) -> Values:
    """Return smooth noise of unit size, drawn through one random knot every `period` hours."""
    knot, offset = np.divmod(hours, period)
    t = offset / period
    a, b, c, d = (_noise(knot + i, seed) for i in (-1, 0, 1, 2))
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))


def _noise(numbers: Hours, seed: int) -> Values:
    """Return one normal number for each of `numbers`, as the sum of twelve uniform ones."""
    draws = [_uniform(numbers, seed * 12 + i) for i in range(12)]
    total: Values = np.sum(draws, axis=0)
    return total - 6.0


def _uniform(numbers: Hours, seed: int) -> Values:
    """Return one number of [0, 1) for each of `numbers`, by the mixer of SplitMix64."""
    with np.errstate(over="ignore"):
        z = numbers.astype(np.uint64) + np.uint64(seed % 2**32) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2.0**53


def station_seed(station: str) -> int:
    """Return the seed of a station's weather."""
    return int.from_bytes(hashlib.sha256(station.encode()).digest()[:3], "big")


# -- the station as KMA would show it --------------------------------------------------------------


def station_items(station: str, start: datetime, end: datetime) -> list[dict[str, str]]:
    """Return the hours from `start` to `end`, both included, as items of a KMA answer."""
    seed = station_seed(station)
    first, last = (int(t.timestamp()) // HOUR_SECONDS for t in (start, end))
    hours = np.arange(first, last + 1, dtype=np.int64)
    columns = {name: _written(name, values) for name, values in weather(hours, seed).items()}
    broken = _uniform(hours, seed + 21) < 0.0006
    repeated = _uniform(hours, seed + 22) < 0.0008
    items = []
    for i in np.flatnonzero(~_absent(hours, seed)).tolist():
        item = {"tm": _written_time(int(hours[i])), "stnId": station}
        for name, field in FIELDS.items():
            item |= {field: columns[name][i], f"{field}Qcflg": ""}
        if broken[i]:
            item["ta"] = "-99.9"
        if item["rn"] == "0.0":
            item |= {"rn": "", "rnQcflg": "9"}
        items += [item, item] if repeated[i] else [item]
    return items


def _absent(hours: Hours, seed: int) -> NDArray[np.bool_]:
    """Say which hours the station lost: one in 1500, and an outage of 2 to 9 hours every 50 days."""
    block, offset = np.divmod(hours, 50 * 24)
    start = (_uniform(block, seed + 23) * 1100).astype(np.int64)
    length = 2 + (_uniform(block, seed + 24) * 8).astype(np.int64)
    outage = (offset >= start) & (offset < start + length)
    return outage | (_uniform(hours, seed + 25) < 1 / 1500)


def _written(name: str, values: Values) -> list[str]:
    digits = 0 if name in ("wind_direction", "humidity") else 1
    return [f"{value:.{digits}f}" for value in (np.round(values, digits) + 0.0).tolist()]


def _written_time(hour: int) -> str:
    return f"{datetime.fromtimestamp(hour * HOUR_SECONDS, ZONE):%Y-%m-%d %H:%M}"


def answer(query: dict[str, str], now: datetime) -> dict[str, Any]:
    """Return what KMA would answer to `query` at `now`, for any station."""
    try:
        start, end = (_asked_time(query, side) for side in ("start", "end"))
        page, rows = int(query["pageNo"]), int(query["numOfRows"])
    except (KeyError, ValueError):
        return _envelope("11", "NO_MANDATORY_REQUEST_PARAMETERS_ERROR")
    if end.date() >= now.astimezone(ZONE).date():
        return _envelope("99", "전날 자료까지 제공됩니다.")
    items = station_items(query.get("stnIds", ""), start, end)
    if not items:
        return _envelope("03", "NO_DATA")
    shown = items[(page - 1) * rows : page * rows]
    body = {"dataType": "JSON", "items": {"item": shown}, "pageNo": page, "numOfRows": rows}
    return _envelope("00", "NORMAL_SERVICE", {**body, "totalCount": len(items)})


def _asked_time(query: dict[str, str], side: str) -> datetime:
    text = query[f"{side}Dt"] + query[f"{side}Hh"]
    return datetime.strptime(f"{text}+0900", "%Y%m%d%H%z")


def _envelope(code: str, said: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    header = {"resultCode": code, "resultMsg": said}
    return {"response": {"header": header} if body is None else {"header": header, "body": body}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets: the second waited 40 ms
    clock: Callable[[], datetime]

    def do_GET(self) -> None:
        """Answer one request for hours."""
        url = urlsplit(self.path)
        found = url.path == f"/{PATH}"
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = json.dumps(answer(query, type(self).clock())).encode() if found else b"not found"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json;charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the client logs what matters."""


@contextmanager
def station_server(clock: Callable[[], datetime]) -> Iterator[str]:
    """Serve the simulated stations on a free port of the loopback; yield the base URL."""
    handler = type("Handler", (_Handler,), {"clock": staticmethod(clock)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = False  # closing the server then waits for answers under way
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def open_sample(settings: Settings, clock: Callable[[], datetime]) -> Iterator[Kma]:
    """Start a simulated station and yield KMA's client for it."""
    with station_server(clock) as url:
        source = Kma(settings, name=NAME, base_url=url, service_key=KEY)
        try:
            yield source
        finally:
            source.close()


# -- insurance -------------------------------------------------------------------------------------


def insurance_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Return invented people with their yearly charges, in the columns of the insurance data.

    Smoking costs far more together with obesity, and a stay in hospital may befall anybody: trees
    find the first, and nobody the second.
    """
    random = np.random.default_rng(seed)
    age = random.integers(18, 65, count)
    bmi = np.clip(random.normal(30.6, 6.1, count), 16, 54).round(2)
    children = np.minimum(random.poisson(1.1, count), 5)
    smoker = random.random(count) < 0.205
    region = random.integers(0, 4, count)
    obese = bmi >= 30
    charges = 1700 + 3.1 * age**2 + 420 * children - 250 * region
    charges = charges + smoker * np.where(obese, 30500 + 450 * (bmi - 35), 10500 + 480 * (bmi - 25))
    stay = (random.random(count) < 0.08) * random.uniform(4000, 19000, count) * ~smoker
    charges = (charges + stay) * random.lognormal(0, 0.07, count)
    regions = ("northeast", "northwest", "southeast", "southwest")
    return [
        {
            "age": int(age[i]),
            "sex": "male" if random.random() < 0.505 else "female",
            "bmi": float(bmi[i]),
            "children": int(children[i]),
            "smoker": "yes" if smoker[i] else "no",
            "region": regions[region[i]],
            "charges": round(float(max(charges[i], 1000.0)), 4),
        }
        for i in range(count)
    ]
