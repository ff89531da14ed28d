from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from raysys.durable import codec
from raysys.errors import InvalidInput, NotFound, WorkflowError
from raysys.records import Window

MOMENT = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "ready"),
    [
        (None, None),
        ([1, 2.5, "x", {"a": None}], [1, 2.5, "x", {"a": None}]),
        ((1, 2), [1, 2]),
        (MOMENT, "2024-01-01T00:00:00Z"),
        (
            Window(start=MOMENT, end=MOMENT),
            {"start": "2024-01-01T00:00:00Z", "end": "2024-01-01T00:00:00Z"},
        ),
    ],
)
def test_outcome_is_plain_json(value: Any, ready: Any) -> None:
    assert codec.outcome(value, "Step x") == ready


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (object(), "Step x gave a object, which is not JSON"),
        ("x" * 100_001, "Step x gave 100,003 bytes; at most 100,000"),
    ],
)
def test_outcome_refuses_what_does_not_belong_in_the_database(value: Any, text: str) -> None:
    with pytest.raises(WorkflowError, match=text):
        codec.outcome(value, "Step x")


@pytest.mark.parametrize(
    "error",
    [NotFound("gone", family="x"), InvalidInput("bad", issues=[{"loc": ["a"], "reason": "b"}])],
)
def test_error_comes_back_as_its_class_with_its_fields(error: NotFound | InvalidInput) -> None:
    back = codec.unpack(codec.pack(error))
    assert (type(back), back.message, back.fields) == (type(error), error.message, error.fields)


def test_foreign_error_becomes_a_workflow_error_that_names_it() -> None:
    translated = codec.translated(KeyError("k"), "Step x")
    assert translated.message == "Step x failed: KeyError: 'k'"
    assert codec.unpack(codec.pack(ValueError("v"))).fields == {"error_type": "ValueError"}


def test_field_that_is_no_json_does_not_hide_the_error() -> None:
    packed = codec.pack(NotFound("gone", odd={1, 2}, worse=object()))
    assert packed["message"] == "gone"
    assert packed["fields"]["odd"] == [1, 2]
    assert "object" in packed["fields"]["worse"]
