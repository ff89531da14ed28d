"""The Open Inference Protocol (V2): tensors in JSON or in its binary extension, to rows and back."""

from __future__ import annotations

import struct
from itertools import islice
from math import prod
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
from numpy.typing import NDArray

from deployments.http import HttpError, Request, Response
from deployments.rows import MOST_FAULTS, Fault, NotFinite, RowReader, invalid, parse, unwrapped
from raysys.families.base import Family

HEADER_LENGTH = b"inference-header-content-length"
OCTETS = b"application/octet-stream"
OUTPUT = "result"
SINGLE_INPUT = "input"
NUMPY = {
    "FP64": "<f8",
    "FP32": "<f4",
    "FP16": "<f2",
    "INT64": "<i8",
    "INT32": "<i4",
    "INT16": "<i2",
    "INT8": "<i1",
    "UINT64": "<u8",
    "UINT32": "<u4",
    "UINT16": "<u2",
    "UINT8": "<u1",
    "BOOL": "?",
}
KINDS = {float: "FP64", int: "INT64", bool: "BOOL", str: "BYTES"}


class Tensor(msgspec.Struct):
    """An input of a request; `data` is absent where the binary part holds it."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: Any = None


class WantedOutput(msgspec.Struct):
    """An output that the caller asks for."""

    name: str
    parameters: dict[str, Any] = {}


class Inference(msgspec.Struct):
    """A request of the protocol."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[WantedOutput] | None = None
    parameters: dict[str, Any] = {}

    @property
    def wants_binary(self) -> bool:
        """Whether the output is to come as raw bytes."""
        default = self.parameters.get("binary_data_output", False)
        if self.outputs:
            return bool(self.outputs[0].parameters.get("binary_data", default))
        return bool(default)


class TensorSpec(msgspec.Struct):
    """A tensor as the metadata describes it: -1 stands for any number of rows."""

    name: str
    datatype: str
    shape: list[int]


class Codec:
    """Turns requests of the protocol into the rows of one family, and answers into tensors.

    A family whose request has fields takes one tensor a field; one whose request is a list takes
    the single tensor `input`.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._reader = RowReader(family)
        self.inputs = _inputs(family.request)

    def read(self, request: Request) -> tuple[Inference, list[Any]]:
        """Return the request and its rows; raises HttpError 400 or InvalidInput."""
        inference, binary = _split(request)
        tensors = _read_tensors(inference, binary)
        _expect_names(self.inputs, inference)
        return inference, self._reader.convert(self._rows(tensors))

    def write(self, inference: Inference, answers: list[Any], name: str, version: str) -> Response:
        """Return the answers as the output tensor, in the form that the request asks for."""
        array, data = output_tensor(answers)
        output: dict[str, Any] = {
            "name": OUTPUT,
            "datatype": "BYTES" if array is None else "FP32",
            "shape": [len(answers)] if array is None else list(array.shape),
        }
        head: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": [output]}
        if inference.id:
            head["id"] = inference.id
        if array is None or not inference.wants_binary:
            output["data"] = data
            return Response(200, msgspec.json.encode(head))
        raw = array.tobytes()
        output["parameters"] = {"binary_data_size": len(raw)}
        text = msgspec.json.encode(head)
        return Response(200, text + raw, OCTETS, ((HEADER_LENGTH, b"%d" % len(text)),))

    def example(self) -> list[dict[str, Any]]:
        """Return the family's example as the inputs of a request with one row."""
        example = self._family.example
        if not _has_fields(self._family.request):
            shape = [1, *self.inputs[0].shape[1:]]
            return [{"name": SINGLE_INPUT, "datatype": "FP32", "shape": shape, "data": example}]
        return [
            {"name": s.name, "datatype": s.datatype, "shape": [1], "data": [example[s.name]]}
            for s in self.inputs
        ]

    def _rows(self, tensors: dict[str, tuple[list[int], list[Any]]]) -> list[Any]:
        if not _has_fields(self._family.request):
            shape, flat = tensors[SINGLE_INPUT]
            return _nested(flat, shape)
        counts = {name: len(flat) for name, (_, flat) in tensors.items()}
        if len(set(counts.values())) > 1 or 0 in counts.values():
            raise invalid([(("inputs",), f"must have the same number of rows, not {counts}")])
        columns = {name: flat for name, (_, flat) in tensors.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def output_tensor(answers: list[Any]) -> tuple[NDArray[np.float32] | None, list[Any]]:
    """Return answers as a float32 array and its flat data; as JSON texts where they are no numbers."""
    try:
        array = np.asarray(answers, dtype=np.float32)
    except (TypeError, ValueError):
        return None, [msgspec.json.encode(answer).decode() for answer in answers]
    return array, array.ravel().tolist()


def _inputs(kind: Any) -> list[TensorSpec]:
    if not _has_fields(kind):
        return [TensorSpec(SINGLE_INPUT, "FP32", [-1, *_row_shape(kind)])]
    return [
        TensorSpec(name, _datatype(field), [-1])
        for name, field in get_type_hints(kind, include_extras=True).items()
    ]


def _row_shape(kind: Any) -> list[int]:
    base, meta = unwrapped(kind)
    if get_origin(base) is not list:
        return []
    fixed = meta is not None and meta.min_length is not None and meta.min_length == meta.max_length
    return [
        meta.min_length if fixed and meta and meta.min_length else -1,
        *_row_shape(get_args(base)[0]),
    ]


def _datatype(kind: Any) -> str:
    base, _ = unwrapped(kind)
    if get_origin(base) is Literal:
        kinds = {type(value) for value in get_args(base)}
        return "BYTES" if str in kinds else KINDS.get(next(iter(kinds)), "BYTES")
    return KINDS.get(base, "BYTES")


def _has_fields(kind: Any) -> bool:
    base, _ = unwrapped(kind)
    return isinstance(base, type) and issubclass(base, msgspec.Struct)


def _split(request: Request) -> tuple[Inference, bytes]:
    declared = request.headers.get(HEADER_LENGTH)
    if declared is None:
        return _inference(request.body), b""
    if not declared.isdigit() or int(declared) > len(request.body):
        raise HttpError(400, "Inference-Header-Content-Length is not the length of the JSON part.")
    length = int(declared)
    return _inference(request.body[:length]), request.body[length:]


def _inference(text: bytes) -> Inference:
    try:
        return msgspec.json.decode(text, type=Inference)
    except msgspec.ValidationError as error:
        raise invalid([(("body",), str(error))]) from error
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return _convert_inference(parse(text))


def _convert_inference(value: Any) -> Inference:
    try:
        return msgspec.convert(value, Inference)
    except msgspec.ValidationError as error:
        raise invalid([(("body",), str(error))]) from error


def _expect_names(specs: list[TensorSpec], inference: Inference) -> None:
    wanted, given = [spec.name for spec in specs], [tensor.name for tensor in inference.inputs]
    found: list[Fault] = [(("inputs", name), "is missing") for name in wanted if name not in given]
    found += [
        (("inputs", name), f"is not an input; the inputs are {', '.join(wanted)}")
        for name in given
        if name not in wanted
    ]
    found += [
        (("outputs", output.name), f"is not an output; the output is {OUTPUT}")
        for output in inference.outputs or []
        if output.name != OUTPUT
    ]
    if found or len(set(given)) != len(given):
        raise invalid(found or [(("inputs",), "names one input twice")])


def _read_tensors(inference: Inference, binary: bytes) -> dict[str, tuple[list[int], list[Any]]]:
    tensors: dict[str, tuple[list[int], list[Any]]] = {}
    offset = 0
    for tensor in inference.inputs:
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            flat = list(_flattened(tensor.data))
        else:
            flat = _unpacked(tensor, binary, offset, size)
            offset += size
        _check_tensor(tensor, flat)
        tensors[tensor.name] = (tensor.shape, flat)
    if offset != len(binary):
        raise HttpError(
            400, f"The binary part has {len(binary)} bytes, and the inputs say {offset}."
        )
    return tensors


def _check_tensor(tensor: Tensor, flat: list[Any]) -> None:
    where = ("inputs", tensor.name)
    if tensor.datatype not in NUMPY and tensor.datatype != "BYTES":
        known = ", ".join((*NUMPY, "BYTES"))
        raise invalid([((*where, "datatype"), f"must be one of {known}")])
    if not tensor.shape or min(tensor.shape) < 0 or prod(tensor.shape) != len(flat):
        raise invalid([((*where, "shape"), f"{tensor.shape[:8]} does not fit {len(flat)} values")])
    unusable = (
        ((*where, index), f"must be a finite number, not {value.text}")
        for index, value in enumerate(flat)
        if isinstance(value, NotFinite)
    )
    found: list[Fault] = list(islice(unusable, MOST_FAULTS))
    if found:
        raise invalid(found)


def _unpacked(tensor: Tensor, binary: bytes, offset: int, size: Any) -> list[Any]:
    if not isinstance(size, int) or size < 0 or offset + size > len(binary):
        raise HttpError(400, f"The binary part ends within input {tensor.name[:100]!r}.")
    raw = binary[offset : offset + size]
    if tensor.datatype == "BYTES":
        return _strings(tensor, raw)
    kind = NUMPY.get(tensor.datatype)
    if kind is None or size % np.dtype(kind).itemsize:
        raise HttpError(400, f"{size} bytes are no whole number of {tensor.datatype[:20]} values.")
    values = np.frombuffer(raw, dtype=kind)
    flat: list[Any] = values.tolist()
    if values.dtype.kind == "f":
        for index in np.flatnonzero(~np.isfinite(values)).tolist():
            flat[index] = NotFinite(str(flat[index]))
    return flat


def _strings(tensor: Tensor, raw: bytes) -> list[Any]:
    found, offset = [], 0
    try:
        while offset < len(raw):
            (length,) = struct.unpack_from("<I", raw, offset)
            piece = raw[offset + 4 : offset + 4 + length]
            if len(piece) != length:
                raise struct.error
            found.append(piece.decode("utf-8"))
            offset += 4 + length
    except (struct.error, UnicodeDecodeError) as error:
        raise HttpError(
            400, f"Input {tensor.name[:100]!r} does not hold length-prefixed UTF-8 texts."
        ) from error
    return found


def _flattened(data: list[Any] | Any) -> list[Any]:
    if not isinstance(data, list):
        raise invalid([(("inputs",), "each needs `data`, a list, or a binary part")])
    while data and isinstance(data[0], list):
        if not all(isinstance(row, list) for row in data):
            raise invalid([(("inputs",), "`data` mixes values and lists")])
        data = [value for row in data for value in row]
    return data


def _nested(flat: list[Any], shape: list[int]) -> list[Any]:
    for size in reversed(shape[1:]):
        if not size:
            return []
        flat = [flat[at : at + size] for at in range(0, len(flat), size)]
    return flat
