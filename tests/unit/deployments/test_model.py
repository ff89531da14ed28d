"""A family's own path: what it answers to good and to bad requests."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
from pathlib import Path
from typing import Any

import pytest
import structlog

from deployments.dataplane import Dataplane
from deployments.model import ModelApp
from raysys.serving.prediction_log import PredictionLog, Rows
from raysys.serving.request_log import RequestLog
from raysys.settings import Settings
from tests.traces import traced
from tests.unit.deployments.conftest import LIMIT_BYTES, Served

GOOD = {"weight": 2.5, "count": 3, "kind": "pear"}


def locs(body: dict[str, Any]) -> list[Any]:
    return [error["loc"] for error in body["errors"]]


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_row_is_answered_with_the_version_that_answered(fruits: Served, method: str) -> None:
    answer = fruits.call(method, json=GOOD)
    assert answer.status_code == 200
    assert answer.json() == {
        "result": 11.0,
        "model": {"name": "fruits", "version": "1"},
        "error": None,
    }
    assert answer.headers["content-type"] == "application/json"


def test_a_list_of_rows_is_answered_in_order(fruits: Served) -> None:
    rows = [{**GOOD, "weight": float(weight)} for weight in range(5)]
    assert fruits.call("POST", json=rows).json()["result"] == [6.0, 8.0, 10.0, 12.0, 14.0]


def test_a_list_request_is_one_row(waves: Served) -> None:
    assert waves.call("PUT", json=[1, 2, 3, 4]).json()["result"] == [2.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", None])
def test_json_and_silence_are_accepted_media_types(fruits: Served, kind: str | None) -> None:
    headers = {"content-type": kind} if kind else {}
    assert fruits.call("POST", content=json.dumps(GOOD), headers=headers).status_code == 200


BAD = {
    "empty": (b"", 400),
    "not json": (b"{age: 1}", 400),
    "cut off": (b'{"weight": 2.5', 400),
    "two values": (b"1 2", 400),
    "not utf-8": (b'{"kind": "\xff"}', 400),
    "too deep": (b"[" * 9_000, 400),
    "null": (b"null", 422),
    "number": (b"5", 422),
    "text": (b'"apple"', 422),
    "no rows": (b"[]", 422),
    "nan": (b'{"weight": NaN, "count": 3, "kind": "pear"}', 422),
    "infinity": (b'{"weight": -Infinity, "count": 3, "kind": "pear"}', 422),
    "overflow": (b'{"weight": 1e999, "count": 3, "kind": "pear"}', 422),
    "huge integer": (b'{"weight": ' + b"9" * 5_000 + b', "count": 3, "kind": "pear"}', 422),
    "lone surrogate": (b'{"weight": 1, "count": 3, "kind": "\\ud800"}', 422),
    "odd field": (b'{"weight": 1, "count": 3, "kind": "pear", "\\udfff": 1}', 422),
}


@pytest.mark.parametrize(("body", "status"), BAD.values(), ids=BAD.keys())
def test_bad_bodies_are_problems(fruits: Served, body: bytes, status: int) -> None:
    answer = fruits.call("POST", content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert (told["status"], told["instance"]) == (status, fruits.path)
    assert bool(told.get("errors")) == (status == 422)
    assert "Traceback" not in answer.text


def test_every_bad_field_is_named_with_its_reason(fruits: Served) -> None:
    body = fruits.call("POST", json={"weight": -1, "count": "3", "kind": "plum", "size": 1}).json()
    reasons = {error["loc"][0]: error["reason"] for error in body["errors"]}
    assert reasons == {
        "weight": "expected `float` >= 0.0",
        "count": "expected `int`, got `str`",
        "kind": "must be one of 'apple', 'pear', 0, 1",
        "size": "is not a field; the fields are weight, count, kind",
    }


def test_missing_fields_are_all_named(fruits: Served) -> None:
    assert locs(fruits.call("POST", json={}).json()) == [["weight"], ["count"], ["kind"]]


def test_a_bad_row_of_many_is_named_by_its_place(fruits: Served) -> None:
    rows = [GOOD, {**GOOD, "count": 0}, GOOD, {**GOOD, "weight": None}]
    assert locs(fruits.call("POST", json=rows).json()) == [[1, "count"], [3, "weight"]]


def test_a_nan_is_named_by_its_place(waves: Served) -> None:
    body = waves.call("POST", content=b"[1, NaN, 3, Infinity]").json()
    assert body["errors"] == [
        {"loc": [1], "reason": "must be a finite number, not NaN"},
        {"loc": [3], "reason": "must be a finite number, not Infinity"},
    ]


@pytest.mark.parametrize("length", [0, 3, 5])
def test_a_wrong_length_is_named(waves: Served, length: int) -> None:
    answer = waves.call("POST", json=[1.0] * length)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"loc": [], "reason": f"must hold 4 values, and holds {length}"}
    ]


def test_out_of_range_values_are_each_named(waves: Served) -> None:
    assert locs(waves.call("POST", json=[61, 0, -61, 0]).json()) == [[0], [2]]


def test_a_list_of_lists_is_refused_where_a_family_takes_one(waves: Served) -> None:
    assert waves.call("POST", json=[[1, 2, 3, 4]]).status_code == 422


def test_faults_are_shown_up_to_a_hundred(fruits: Served) -> None:
    answer = fruits.call("POST", json=[{}] * 500)
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 100


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_other_methods_are_405_and_name_the_right_ones(fruits: Served, method: str) -> None:
    answer = fruits.call(method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, PUT")


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/csv"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_other_media_types_are_415(fruits: Served, headers: dict[str, str]) -> None:
    assert fruits.call("POST", content=b"{}", headers=headers).status_code == 415


def test_a_large_body_is_413_by_its_header(fruits: Served) -> None:
    assert fruits.call("POST", content=b" " * (LIMIT_BYTES + 1)).status_code == 413


def test_a_large_chunked_body_is_413_before_its_end(fruits: Served) -> None:
    sent = 0

    async def chunks() -> Any:
        nonlocal sent
        while sent < 1_000_000:
            sent += 4_000
            yield b" " * 4_000

    async def receive_rest() -> int:
        async def receive() -> dict[str, Any]:
            piece = await anext(stream, None)
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

        async def send(message: Any) -> None:
            statuses.append(message.get("status"))

        stream, statuses = chunks(), []
        scope = {"type": "http", "method": "POST", "path": fruits.path, "headers": []}
        await fruits.app(scope, receive, send)
        return int(statuses[0])

    assert asyncio.run(receive_rest()) == 413
    assert sent < 2 * LIMIT_BYTES


def test_a_caller_who_leaves_is_not_answered(fruits: Served) -> None:
    async def leave() -> list[Any]:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": fruits.path, "headers": []}
        await fruits.app(scope, receive, send)
        return sent

    assert asyncio.run(leave()) == []


def test_paths_below_are_404(fruits: Served) -> None:
    assert fruits.call("POST", f"{fruits.path}/more", json=GOOD).status_code == 404
    assert fruits.call("POST", f"{fruits.path}/", json=GOOD).status_code == 200


def test_without_a_model_it_says_so_and_when_to_ask_again(modelless: Served) -> None:
    answer = modelless.call("POST", json=GOOD)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "raysys train fruits" in answer.json()["detail"]


def test_a_version_may_be_named(fruits: Served) -> None:
    second = fruits.call("POST", f"{fruits.path}?version=2", json=GOOD).json()
    assert (second["result"], second["model"]["version"]) == (16.5, "2")
    assert fruits.call("POST", json=GOOD).json()["model"]["version"] == "1"
    assert fruits.call("POST", f"{fruits.path}?version=1", json=GOOD).status_code == 200


@pytest.mark.parametrize(("version", "status"), [("9", 404), ("x", 422), ("", 422), ("-1", 422)])
def test_a_version_that_is_none_is_refused(fruits: Served, version: str, status: int) -> None:
    assert fruits.call("POST", f"{fruits.path}?version={version}", json=GOOD).status_code == status


def test_a_version_cannot_be_fetched_while_the_watcher_is_down(fruits: Served) -> None:
    fruits.offers.down = True
    assert fruits.call("POST", f"{fruits.path}?version=2", json=GOOD).status_code == 503
    assert fruits.call("POST", json=GOOD).status_code == 200


def test_a_fault_of_ours_is_500_without_its_trace(
    fruits: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(fruits.family, "decode", broken)
    answer = fruits.call("POST", json=GOOD)
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_requests_and_rows_are_counted(fruits: Served) -> None:
    fruits.call("POST", json=[GOOD, GOOD])
    fruits.call("POST", json={})
    assert fruits.tally.statuses == {200: 1, 422: 1}
    assert fruits.tally.rows == {"1": 2}


def test_a_request_goes_on_with_its_callers_trace(fruits: Served) -> None:
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": caller, "x-request-id": "r-1"}
    with traced() as traces:
        plane = Dataplane(fruits.family, fruits.follower, tracer=traces.tracer)
        fruits.app = ModelApp(plane, fruits.path, LIMIT_BYTES)
        assert fruits.call("POST", json=GOOD, headers=headers).is_success
        request, run = traces.spans()["predict fruits"], traces.spans()["run model"]
    assert f"{request.context.trace_id:032x}-{request.parent.span_id:016x}" == caller[3:-3]
    assert request.attributes["raysys.request_id"] == "r-1"
    assert request.attributes["http.response.status_code"] == 200
    assert run.parent.span_id == request.context.span_id
    assert run.attributes == {"raysys.family": "fruits", "raysys.version": "1"}


def test_a_request_is_logged_with_its_id_where_that_is_wanted(
    fruits: Served, tmp_path: Path
) -> None:
    from raysys import log

    out = io.StringIO()
    log.configure(Settings(home=tmp_path, log_format="json", log_file="none"), out)
    try:
        plane = Dataplane(fruits.family, fruits.follower, requests=RequestLog("fruits"))
        fruits.app = ModelApp(plane, fruits.path, LIMIT_BYTES)
        fruits.call("POST", json=GOOD, headers={"x-request-id": "r-1"})
        fruits.call("POST", json={}, headers={"x-request-id": "r-2"})
    finally:
        structlog.reset_defaults()
    first, second = map(json.loads, out.getvalue().splitlines())
    assert (first["request_id"], first["version"]) == ("r-1", "1")
    assert (second["request_id"], second["status"]) == ("r-2", 422)
    assert "pear" not in out.getvalue()


def logged(served: Served, query: str = "", **headers: str) -> Rows:
    """Return what is logged of one request that names its hour and key."""
    written: Rows = []
    log = PredictionLog(served.family.name, written.extend, 10)
    plane = Dataplane(served.family, served.follower, log=log)
    served.app = ModelApp(plane, served.path, LIMIT_BYTES)
    body = served.family.example
    assert served.call("POST", served.path + query, json=body, headers=headers).is_success
    log.flush()
    return written


def test_a_prediction_is_logged_with_the_hour_and_the_key_of_its_request(waves: Served) -> None:
    query, key = "?at=2026-11-24T14:00%2B09:00&version=1", {"x-prediction-key": "trip 7"}
    [row] = logged(waves, query, **key)
    assert row["anchor"] == dt.datetime(2026, 11, 24, 5, tzinfo=dt.UTC)
    assert (row["key"], row["row"]) == ("trip 7", 0)
    [row] = logged(waves)
    assert (row["anchor"], row["key"]) == (None, None)


def test_the_hour_of_a_request_that_is_no_piece_of_a_series_means_nothing(fruits: Served) -> None:
    [row] = logged(fruits, "?at=noon")
    assert row["anchor"] is None


@pytest.mark.parametrize(
    "at",
    ["", "noon", "2026-11-24", "2026-11-24T05:00", "2026-11-24T05:30Z", "0001-01-01T00:00%2B09:00"],
)
def test_what_is_no_hour_with_a_zone_is_refused(waves: Served, at: str) -> None:
    answer = waves.call("POST", f"{waves.path}?at={at}", json=[1, 2, 3, 4])
    assert answer.status_code == 422
    assert locs(answer.json()) == [["query", "at"]]
