"""ONNX graphs built by hand where a converter is missing or slow; nothing of a single family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

OPSET = 17
IR_VERSION = 8  # what ONNX Runtime 1.14 and later read; onnx itself would write its newest
Weights = NDArray[np.float32]


class Graph:
    """A graph in the making: tensors are names, and `apply` adds an operator and gives its output."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def apply(self, operator: str, *inputs: str, output: int = 0, **attributes: Any) -> str:
        """Add an operator and return the name of its output number `output`."""
        from onnx import helper

        name = f"t{len(self.nodes)}"
        outputs = [""] * output + [name]
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return name

    def serialise(self, result: str, width: int) -> bytes:
        """Return the model `input` [rows, self.width] -> `output` [rows, width], both float32."""
        from onnx import TensorProto, helper

        nodes = [*self.nodes, helper.make_node("Identity", [result], ["output"])]
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
            for name, size in (("input", self.width), ("output", width))
        ]
        graph = helper.make_graph(nodes, "raysys", ends[:1], ends[1:], self.constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
        data: bytes = model.SerializeToString()
        return data

    def dense(self, x: str, kernel: Weights, bias: Weights) -> str:
        """Return `x` [rows, n] times `kernel` [n, m] plus `bias` [m]."""
        return self.apply("Gemm", x, self.constant(kernel), self.constant(bias))

    def gru_stack(self, x: str, layers: Sequence[tuple[Weights, Weights, Weights]]) -> str:
        """Return the last state [rows, cells] of stacked GRU layers over the columns of `x` [rows, steps].

        Each layer is Keras' `kernel` [inputs, 3 cells], `recurrent_kernel` [cells, 3 cells] and
        `bias` [2, 3 cells] with `reset_after=True`. Both sides order the gates update, reset, new.
        """
        sequence = self.apply("Transpose", x, perm=[1, 0])
        sequence = self.apply("Unsqueeze", sequence, self.constant([2], np.int64))
        for kernel, recurrent, bias in layers[:-1]:
            states = self._gru(sequence, kernel, recurrent, bias, output=0)
            sequence = self.apply("Squeeze", states, self.constant([1], np.int64))
        last = self._gru(sequence, *layers[-1], output=1)
        return self.apply("Squeeze", last, self.constant([0], np.int64))

    def _gru(self, x: str, kernel: Weights, recurrent: Weights, bias: Weights, output: int) -> str:
        weights = [kernel.T[None], recurrent.T[None], bias.reshape(1, -1)]
        return self.apply(
            "GRU",
            x,
            *(self.constant(weight) for weight in weights),
            output=output,
            hidden_size=recurrent.shape[0],
            linear_before_reset=1,  # Keras' reset_after
        )


def rename_output(model: Any, name: str) -> bytes:
    """Return `model` serialised with its single output called `name`."""
    old = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [name if output == old else output for output in node.output]
    model.graph.output[0].name = name
    data: bytes = model.SerializeToString()
    return data
