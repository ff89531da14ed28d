"""The Open Inference Protocol: tensors in JSON and in the binary extension."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from tests.unit.deployments.conftest import Served

INFER = "/v2/models/fruits/infer"
LENGTH = "inference-header-content-length"


def tensor(name: str, datatype: str, data: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data, **more}


def fruit_inputs(rows: int = 2) -> list[dict[str, Any]]:
    return [
        tensor("weight", "FP64", [float(row) for row in range(rows)]),
        tensor("count", "INT64", [3] * rows),
        tensor("kind", "BYTES", ["pear"] * rows),
    ]


def binary(inputs: list[tuple[str, str, list[int], bytes]], **head: Any) -> dict[str, Any]:
    """Return the content and headers of a request in the binary extension."""
    tensors = [
        {"name": n, "datatype": d, "shape": s, "parameters": {"binary_data_size": len(raw)}}
        for n, d, s, raw in inputs
    ]
    text = json.dumps({"inputs": tensors, **head}).encode()
    content = text + b"".join(raw for *_, raw in inputs)
    return {"content": content, "headers": {LENGTH: str(len(text))}}


def texts(*values: str) -> bytes:
    return b"".join(struct.pack("<I", len(v.encode())) + v.encode() for v in values)


def doubles(*values: float) -> bytes:
    return np.array(values, "<f8").tobytes()


GOOD_BINARY = [
    ("weight", "FP64", [2], doubles(1, 2)),
    ("count", "INT64", [2], np.array([3, 3], "<i8").tobytes()),
    ("kind", "BYTES", [2], texts("pear", "apple")),
]


def v2(served: Served, method: str, path: str, **request: Any) -> tuple[int, dict[str, Any]]:
    answer = call(served, method, path, **request)
    return answer.status_code, answer.json()


def call(served: Served, method: str, path: str, **request: Any) -> Any:
    return served.through_gateway(method, path, **request)


def test_the_metadata_names_the_tensors(fruits: Served, waves: Served) -> None:
    status, told = v2(fruits, "GET", "/v2/models/fruits")
    assert status == 200
    assert told["versions"] == ["1"]
    assert [(t["name"], t["datatype"], t["shape"]) for t in told["inputs"]] == [
        ("weight", "FP64", [-1]),
        ("count", "INT64", [-1]),
        ("kind", "BYTES", [-1]),
    ]
    assert told["outputs"] == [{"name": "result", "datatype": "FP32", "shape": [-1]}]
    told = v2(waves, "GET", "/v2/models/waves")[1]
    assert told["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    assert told["outputs"][0]["shape"] == [-1, 4]


@pytest.mark.parametrize("name", ["fruits", "waves"])
def test_the_documented_example_is_answered(fruits: Served, waves: Served, name: str) -> None:
    served = {"fruits": fruits, "waves": waves}[name]
    inputs = served.codec.example()
    status, told = v2(served, "POST", f"/v2/models/{name}/infer", json={"inputs": inputs})
    assert status == 200
    assert told["outputs"][0]["shape"][0] == 1


def test_rows_are_answered_in_order_under_the_callers_id(fruits: Served) -> None:
    status, told = v2(fruits, "POST", INFER, json={"id": "a1", "inputs": fruit_inputs(3)})
    assert status == 200
    assert (told["id"], told["model_name"], told["model_version"]) == ("a1", "fruits", "1")
    assert told["outputs"] == [
        {"name": "result", "datatype": "FP32", "shape": [3], "data": [6.0, 8.0, 10.0]}
    ]


def test_a_column_may_be_two_dimensional(fruits: Served) -> None:
    inputs = [{**t, "shape": [2, 1], "data": [[v] for v in t["data"]]} for t in fruit_inputs()]
    assert v2(fruits, "POST", INFER, json={"inputs": inputs})[0] == 200


@pytest.mark.parametrize("path", ["/v2/models/waves/infer", "/v2/models/waves_next/infer"])
def test_both_names_are_accepted(waves: Served, path: str) -> None:
    data = [[1, 2, 3, 4], [5, 6, 7, 8]]
    one = {"name": "input", "datatype": "FP32", "shape": [2, 4], "data": data}
    told = v2(waves, "POST", path, json={"inputs": [one]})[1]
    assert told["outputs"][0]["shape"] == [2, 4]
    assert told["outputs"][0]["data"] == [2, 4, 6, 8, 10, 12, 14, 16]


def test_binary_inputs_give_the_same_answer(fruits: Served) -> None:
    status, told = v2(fruits, "POST", INFER, **binary(GOOD_BINARY))
    assert (status, told["outputs"][0]["data"]) == (200, [8.0, 10.0])


@pytest.mark.parametrize(
    "head",
    [
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "result", "parameters": {"binary_data": True}}]},
    ],
)
def test_binary_output_follows_its_header(fruits: Served, head: dict[str, Any]) -> None:
    answer = call(fruits, "POST", INFER, **binary(GOOD_BINARY, **head))
    length = int(answer.headers[LENGTH])
    output = json.loads(answer.content[:length])["outputs"][0]
    assert output["parameters"] == {"binary_data_size": 8}
    assert np.frombuffer(answer.content[length:], "<f4").tolist() == [8.0, 10.0]


def test_versions_are_served_by_their_paths(fruits: Served) -> None:
    path = "/v2/models/fruits/versions/2"
    status, told = v2(fruits, "POST", f"{path}/infer", json={"inputs": fruit_inputs(1)})
    assert (status, told["model_version"]) == (200, "2")
    assert told["outputs"][0]["data"] == [9.0]
    assert v2(fruits, "GET", f"{path}/ready")[0] == 200
    assert v2(fruits, "GET", path)[1]["versions"] == ["2"]
    assert v2(fruits, "GET", "/v2/models/fruits/versions/9/ready")[0] == 404


def test_without_a_model_it_is_not_ready(modelless: Served) -> None:
    assert v2(modelless, "GET", "/v2/models/fruits/ready")[0] == 503
    assert v2(modelless, "POST", INFER, json={"inputs": fruit_inputs()})[0] == 503


def changed(index: int, **change: Any) -> list[dict[str, Any]]:
    inputs = fruit_inputs()
    inputs[index] |= change
    return inputs


WRONG = {
    "no inputs": ([], ["inputs", "weight"]),
    "one missing": (fruit_inputs()[:2], ["inputs", "kind"]),
    "one unknown": ([*fruit_inputs(), tensor("size", "FP32", [1.0, 2.0])], ["inputs", "size"]),
    "one twice": ([*fruit_inputs(), fruit_inputs()[0]], ["inputs"]),
    "other counts": (changed(0, shape=[1], data=[1.0]), ["inputs"]),
    "wrong shape": (changed(0, shape=[3]), ["inputs", "weight", "shape"]),
    "negative shape": (changed(0, shape=[-2]), ["inputs", "weight", "shape"]),
    "no shape": (changed(0, shape=[]), ["inputs", "weight", "shape"]),
    "unknown datatype": (changed(0, datatype="FP8"), ["inputs", "weight", "datatype"]),
    "no data": (changed(0, data=None), ["inputs"]),
    "ragged data": (changed(0, data=[[1.0], 2.0]), ["inputs"]),
    "out of range": (changed(0, data=[1.0, -1.0]), [1, "weight"]),
    "wrong type": (changed(1, data=[3, "3"]), [1, "count"]),
    "unknown name": (changed(2, data=["pear", "plum"]), [1, "kind"]),
}


@pytest.mark.parametrize(("inputs", "loc"), WRONG.values(), ids=WRONG.keys())
def test_wrong_tensors_are_named(fruits: Served, inputs: Any, loc: list[Any]) -> None:
    status, told = v2(fruits, "POST", INFER, json={"inputs": inputs})
    assert (status, told["errors"][0]["loc"]) == (422, loc)
    assert told["error"] == told["detail"]


def test_an_unknown_output_is_named(fruits: Served) -> None:
    body = {"inputs": fruit_inputs(), "outputs": [{"name": "price"}]}
    status, told = v2(fruits, "POST", INFER, json=body)
    assert (status, told["errors"][0]["loc"]) == (422, ["outputs", "price"])


def test_nan_is_named_in_json_and_in_binary(fruits: Served) -> None:
    text = json.dumps({"inputs": fruit_inputs(1)}).replace("[0.0]", "[NaN]")
    status, told = v2(fruits, "POST", INFER, content=text)
    assert (status, told["errors"][0]["loc"]) == (422, ["inputs", "weight", 0])
    inputs = [("weight", "FP64", [2], doubles(1, float("nan"))), *GOOD_BINARY[1:]]
    status, told = v2(fruits, "POST", INFER, **binary(inputs))
    assert (status, told["errors"][0]["loc"]) == (422, ["inputs", "weight", 1])


def cut(**change: Any) -> dict[str, Any]:
    return {**binary(GOOD_BINARY), **change}


BROKEN = {
    "no json": {"content": b"{"},
    "cut off": cut(content=binary(GOOD_BINARY)["content"][:-3]),
    "too long": cut(content=binary(GOOD_BINARY)["content"] + b"x"),
    "header too large": cut(headers={LENGTH: "999999"}),
    "header no number": cut(headers={LENGTH: "many"}),
    "half a number": binary([("weight", "FP64", [1], b"123"), *GOOD_BINARY[1:]]),
    "half a text": binary([*GOOD_BINARY[:2], ("kind", "BYTES", [1], b"\x09\x00\x00\x00abc")]),
    "no utf-8": binary([*GOOD_BINARY[:2], ("kind", "BYTES", [1], b"\x01\x00\x00\x00\xff")]),
}


@pytest.mark.parametrize("request_", BROKEN.values(), ids=BROKEN.keys())
def test_broken_requests_are_400(fruits: Served, request_: dict[str, Any]) -> None:
    assert call(fruits, "POST", INFER, **request_).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", INFER, 405),
        ("POST", "/v2/models/fruits/ready", 405),
        ("POST", "/v2/models/fruits", 405),
        ("GET", "/v2/models/fruits/config", 404),
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/fruits/versions/x/ready", 404),
    ],
)
def test_other_methods_and_paths(fruits: Served, method: str, path: str, status: int) -> None:
    assert v2(fruits, method, path)[0] == status
