"""Any body at all: no answer is a server's fault, and every status is one that is documented."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.openapi import PREDICT_PROBLEMS
from tests.unit.deployments.conftest import Served
from tests.unit.serving.tiny import Fruits, Waves

DOCUMENTED = {200, *PREDICT_PROBLEMS} - {503}
numbers = st.one_of(st.integers(), st.floats(), st.integers(10**20, 10**40))
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=20,
)
fruit = st.fixed_dictionaries(
    {},
    optional={
        "weight": st.one_of(st.floats(0, 1000), scalars),
        "count": st.one_of(st.integers(1, 9), scalars),
        "kind": st.one_of(st.sampled_from(["apple", "pear", 0, 1]), scalars),
        "other": scalars,
    },
)
waves_row = st.lists(st.one_of(st.floats(-60, 60), scalars), max_size=6)
tensor = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["weight", "count", "kind", "input", "x"]),
        "datatype": st.sampled_from(["FP64", "FP32", "INT64", "BYTES", "BOOL", "?"]),
        "shape": st.lists(st.integers(-2, 5), max_size=3),
    },
    optional={
        "data": st.one_of(values, waves_row),
        "parameters": st.dictionaries(st.just("binary_data_size"), values),
    },
)
inference = st.fixed_dictionaries(
    {"inputs": st.one_of(st.lists(tensor, max_size=4), values)},
    optional={"id": scalars, "outputs": values, "parameters": values},
)
BODIES = {
    "bytes": st.binary(max_size=200),
    "json": values.map(lambda value: json.dumps(value).encode()),
    "fruit": st.one_of(fruit, st.lists(fruit, max_size=4)).map(lambda v: json.dumps(v).encode()),
    "waves": st.one_of(waves_row, st.lists(waves_row)).map(lambda v: json.dumps(v).encode()),
    "v2": inference.map(lambda value: json.dumps(value).encode()),
}


@pytest.fixture(scope="module")
def served(make_served: Callable[[Any, int], Served]) -> dict[str, Served]:
    return {"fruits": make_served(Fruits(), 2), "waves": make_served(Waves(), 4)}


@pytest.mark.parametrize("family", ["fruits", "waves"])
@pytest.mark.parametrize("kind", BODIES)
def test_no_body_is_a_fault_of_the_server(
    served: dict[str, Served], family: str, kind: str
) -> None:
    one = served[family]
    infer = f"/v2/models/{family}/infer"

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(body=BODIES[kind], header=st.one_of(st.none(), st.integers(0, 300)))
    def check(body: bytes, header: int | None) -> None:
        headers = {} if header is None else {"inference-header-content-length": str(header)}
        for path in (one.path, infer):
            answer = one.through_gateway("POST", path, content=body, headers=headers)
            assert answer.status_code in DOCUMENTED, answer.text
            json.loads(answer.content) if answer.status_code != 200 else None

    check()


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(weights=st.lists(st.floats(0, 1000, width=32), min_size=1, max_size=50))
def test_each_row_gets_its_own_answer(served: dict[str, Served], weights: list[float]) -> None:
    rows = [{"weight": weight, "count": 1, "kind": 0} for weight in weights]
    result = served["fruits"].call("POST", json=rows).json()["result"]
    assert result == pytest.approx([2 * (weight + 1) for weight in weights], rel=1e-5)
