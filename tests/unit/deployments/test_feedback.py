"""The truth that callers send: kept at once, or refused with each fault."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from deployments.feedback import Desk
from deployments.gateway import GatewayApp
from deployments.keys import Keys
from raysys import db
from raysys.store import feedback
from raysys.store.tables import feedback as table
from tests.unit.deployments.conftest import LIMIT_BYTES, Served


@pytest.fixture
def desk(waves: Served, migrated: Path) -> Iterator[Served]:
    """The gateway of a family of four values over a migrated database."""
    shutil.copy(migrated, waves.office.settings.home / "raysys.db")
    yield waves
    waves.office.close()


def post(served: Served, body: Any, path: str = "/feedback/waves", **request: Any) -> Any:
    return served.through_gateway("POST", path, json=body, **request)


def test_a_truth_is_kept_and_known_when_it_comes_again(desk: Served) -> None:
    body = {"request_id": "r-1", "values": [1, None, 2.5]}
    answers = [post(desk, body), post(desk, body, "/feedback/waves_next/")]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == {"family": "waves", "received": 1, "new": 1, "known": 0}
    assert answers[1].json()["known"] == 1
    [[kept]] = feedback.batches(desk.office.engine, "waves", 10)
    assert (kept.request_id, kept.values, kept.row, kept.source) == (
        "r-1",
        [1.0, None, 2.5],
        0,
        "api",
    )


def test_many_are_kept_by_request_and_row_or_by_key(desk: Served) -> None:
    body = [{"request_id": "r", "row": 3, "value": 1.5}, {"key": "Fahrt 7 ü", "value": 2}]
    assert post(desk, body).json()["new"] == 2
    [kept] = feedback.batches(desk.office.engine, "waves", 10)
    assert [(k.request_id, k.key, k.row, k.values) for k in kept] == [
        ("r", None, 3, [1.5]),
        (None, "Fahrt 7 ü", 0, [2.0]),
    ]


@pytest.mark.parametrize(
    ("body", "locs"),
    [
        ({"value": 1}, [["request_id"]]),
        ({"request_id": "r", "key": "k", "value": 1}, [["request_id"]]),
        ({"key": "k"}, [["values"]]),
        ({"key": "k", "value": 1, "values": [1]}, [["values"]]),
        ({"key": "k", "values": []}, [["values"]]),
        ({"key": "k", "values": [1, 2, 3, 4, 5]}, [["values"]]),
        ({"key": "k", "value": "high"}, [["value"]]),
        ({"key": "", "value": 1}, [["key"]]),
        ({"key": "a\u0000b", "value": 1}, [["key"]]),
        ({"key": "k" * 129, "value": 1}, [["key"]]),
        ({"key": "k", "row": -1, "value": 1}, [["row"]]),
        ({"key": "k", "value": 1, "vlaue": 1}, [["vlaue"]]),
        ([{"key": "k", "value": 1}, {"key": "k"}], [[1, "values"]]),
        ([], [[]]),
        (7, [[]]),
        ([{"key": "k", "value": 1}] * 1001, [[]]),
    ],
)
def test_every_fault_is_named_and_nothing_is_kept(
    desk: Served, body: Any, locs: list[list[Any]]
) -> None:
    answer = post(desk, body)
    assert answer.status_code in (413, 422)
    if answer.status_code == 422:
        assert [fault["loc"] for fault in answer.json()["errors"]][: len(locs)] == locs
    with db.reading(desk.office.engine) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b'{"key": "k", "value": NaN}', 422),
        (b'{"key": "k", "value": 1e999}', 422),
        (b'{"key": "\\ud800", "value": 1}', 422),
        (b'{"key": "k", "row": 99999999999999999999, "value": 1}', 422),
        (b"\xff", 400),
    ],
)
def test_what_json_cannot_mean_is_refused(desk: Served, content: bytes, status: int) -> None:
    answer = desk.through_gateway("POST", "/feedback/waves", content=content)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/feedback/waves", 405),
        ("POST", "/feedback/nobody", 404),
        ("POST", "/feedback/waves/x", 404),
        ("POST", "/feedback", 404),
    ],
)
def test_other_methods_and_paths_are_problems(
    desk: Served, method: str, path: str, status: int
) -> None:
    assert desk.through_gateway(method, path).status_code == status


def test_who_needs_a_key_to_predict_needs_it_here(desk: Served) -> None:
    app = GatewayApp({}, None, LIMIT_BYTES, desk=Desk(desk.office, Keys("shop=s3cret")))

    def status(**headers: str) -> int:
        body = {"key": "k", "value": 1}
        sent = desk._call("POST", "/feedback/waves", app, json=body, headers=headers)
        return asyncio.run(sent).status_code

    assert [status(), status(**{"x-api-key": "x"}), status(**{"x-api-key": "s3cret"})] == [
        401,
        403,
        202,
    ]


def test_a_database_that_is_away_is_503_with_when_to_ask_again(waves: Served) -> None:
    answer = post(waves, {"key": "k", "value": 1})  # its database was never migrated
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
