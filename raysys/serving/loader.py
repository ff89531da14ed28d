"""From bytes to a model that answers: hash, ONNX session, signature, warm-up; no network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from raysys.errors import InvalidInput, ModelRefused
from raysys.families.base import Array, Family

FLOAT = "tensor(float)"


class LoadedModel:
    """One version of a family's model, warm. `run` may be called from several threads at once."""

    def __init__(self, family: str, version: str, sha256: str, session: Any) -> None:
        self.family = family
        self.version = version
        self.sha256 = sha256
        self.loaded_at = datetime.now(UTC)
        self.input_name: str = session.get_inputs()[0].name
        self._session_run: Callable[..., list[Array]] = session.run
        self._outputs = [session.get_outputs()[0].name]

    def run(self, rows: Array) -> Array:
        """Return the model's float32 output for encoded rows, one row each."""
        return self._session_run(self._outputs, {self.input_name: rows})[0]


def load(family: Family, version: str, sha256: str, data: bytes) -> LoadedModel:
    """Build, check and warm the model in `data`; raises ModelRefused with the reason otherwise."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise _refused(
            "hash", family, version, f"its SHA-256 starts with {found[:12]}, not {sha256[:12]}"
        )
    session = _session(family, version, data)
    rows = example_rows(family)
    _check_signature(family, version, session, rows)
    model = LoadedModel(family.name, version, sha256, session)
    _warm(family, model, rows)
    return model


def example_rows(family: Family) -> Array:
    """Return the family's example twice, encoded: two rows show that rows come first."""
    row = msgspec.convert(family.example, family.request)
    return family.encode([row, row])


def _session(family: Family, version: str, data: bytes) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    # Replicas are the unit of parallelism: a pool of threads would fight with them for the cores.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises a dozen classes for a file that is no model
        raise _refused(
            "load", family, version, f"ONNX Runtime cannot load it: {_line(error)}"
        ) from error


def _check_signature(family: Family, version: str, session: Any, rows: Array) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or not outputs:
        raise _refused(
            "signature",
            family,
            version,
            f"it has {len(inputs)} inputs and {len(outputs)} outputs, not one and one",
        )
    for tensor in (inputs[0], outputs[0]):
        if tensor.type != FLOAT:
            raise _refused(
                "signature", family, version, f"{tensor.name!r} is {tensor.type}, not float32"
            )
    wanted, shape = list(rows.shape), list(inputs[0].shape)
    fixed = [(w, s) for w, s in zip(wanted[1:], shape[1:], strict=False) if isinstance(s, int)]
    if len(shape) != len(wanted) or any(w != s for w, s in fixed):
        raise _refused(
            "signature",
            family,
            version,
            f"its input has the shape {shape}, and the family encodes to {['rows', *wanted[1:]]}",
        )


def _warm(family: Family, model: LoadedModel, rows: Array) -> None:
    try:
        output = model.run(rows)
        answers = family.decode(output)
    except InvalidInput as error:
        raise _refused(
            "example", family, model.version, f"the family's example is not valid: {error}"
        ) from error
    except Exception as error:  # whatever fails here would fail with every request
        raise _refused(
            "example", family, model.version, f"it fails on the family's example: {_line(error)}"
        ) from error
    if len(answers) != len(rows) or not np.isfinite(output).all():
        raise _refused(
            "example",
            family,
            model.version,
            f"it gives {len(answers)} answers to {len(rows)} examples, or infinite numbers",
        )


def _refused(why: str, family: Family, version: str, reason: str) -> ModelRefused:
    return ModelRefused(
        f"{family.name} {version} is refused: {reason}.",
        family=family.name,
        version=version,
        why=why,
    )


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
