"""ONNX graphs built by hand where a converter is missing or slow; nothing of a single family."""

from __future__ import annotations

from typing import Any


def rename_output(model: Any, name: str) -> bytes:
    """Return `model` serialised with its single output called `name`."""
    old = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [name if output == old else output for output in node.output]
    model.graph.output[0].name = name
    data: bytes = model.SerializeToString()
    return data
