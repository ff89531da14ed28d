"""Two families with models of one multiplication, and an `Offers` that a test fills by hand."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from raysys.errors import NotFound, Unavailable
from raysys.families.base import Array, Family, Gate, Series, Table
from raysys.records import LoadedVersion
from raysys.serving.offers import Offer
from raysys.serving.rollout import Rollout, Tried


class Fruit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request with fields of every kind."""

    weight: Annotated[float, msgspec.Meta(ge=0, le=1000)]
    count: Annotated[int, msgspec.Meta(ge=1, le=9)]
    kind: Literal["apple", "pear", 0, 1]


class Serving(Family):
    """The half of a family that serves; the other half is never called."""

    gate = Gate(baseline="none", margin=0.0, parity=0.0)

    def _untrained(self, *_: Any) -> Any:
        raise AssertionError("a replica must not train")

    prepare = split = space = validate = fit = predict = to_onnx = baselines = _untrained


class Fruits(Serving):
    """Prices rows of fields: the answer is `scale` times (weight + count)."""

    name = "fruits"
    route = "fruits"
    title = "Price of fruit"
    data = Table(label="price")
    request = Fruit
    example = {"weight": 2.5, "count": 3, "kind": "apple"}
    many = True

    def encode(self, rows: list[Fruit]) -> Array:
        return np.array([[row.weight, row.count] for row in rows], dtype=np.float32)

    def decode(self, output: Array) -> list[Any]:
        return output.sum(axis=1).tolist()


class Waves(Serving):
    """Continues a list of four numbers with four: the answer is `scale` times the list."""

    name = "waves"
    route = "waves_next"
    title = "The next four numbers"
    data = Series(column="height", history=4, horizon=4)
    request = Annotated[
        list[Annotated[float, msgspec.Meta(ge=-60, le=60)]],
        msgspec.Meta(min_length=4, max_length=4),
    ]
    example = [1.0, 2.0, 3.0, 4.0]
    many = False

    def encode(self, rows: list[list[float]]) -> Array:
        return np.array(rows, dtype=np.float32)

    def decode(self, output: Array) -> list[Any]:
        return output.tolist()


def scaled(width: int, scale: float, *, kind: str = "FLOAT") -> bytes:
    """Return an ONNX model that multiplies rows of `width` numbers by `scale`."""
    from onnx import TensorProto, checker, helper

    element = getattr(TensorProto, kind)
    node = helper.make_node("Mul", ["x", "scale"], ["y"])
    graph = helper.make_graph(
        [node],
        "scaled",
        [helper.make_tensor_value_info("x", element, [None, width])],
        [helper.make_tensor_value_info("y", element, [None, width])],
        [helper.make_tensor("scale", element, [1], [scale])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def offer(family: Family, version: str, data: bytes) -> Offer:
    """Return an offer of `data` under its true hash."""
    return Offer(
        family=family.name, version=version, sha256=hashlib.sha256(data).hexdigest(), data=data
    )


class HandOffers:
    """Offers what the test puts in: `champion` now, `versions` on demand, nothing while `down`."""

    def __init__(self, champion: Offer | None = None) -> None:
        self.versions: dict[str, Offer] = {}
        self.states: list[LoadedVersion] = []
        self.rollout: Rollout | None = None
        self.tried: Tried | None = None
        self.down = False
        self.champion: Offer | None = None
        self._changed = asyncio.Event()
        self.offer(champion)

    def offer(self, champion: Offer | None) -> None:
        """Make `champion` the version to serve."""
        self.champion = champion
        if champion is not None:
            self.versions[champion.version] = champion
        self._changed.set()

    async def next(
        self, state: LoadedVersion, known: str | None, wait_seconds: float
    ) -> Offer | None:
        """See `Offers.next`."""
        self.states.append(state)
        while True:
            if self.down:
                raise Unavailable("The watcher is down.")
            if self.champion is not None and self.champion.version != known:
                return self.champion
            if not wait_seconds:
                return None
            self._changed.clear()
            await self._changed.wait()

    async def version(self, family: str, version: str) -> Offer:
        """See `Offers.version`."""
        if self.down:
            raise Unavailable("The watcher is down.")
        if version not in self.versions:
            raise NotFound(f"{family} has no version {version}.")
        return self.versions[version]

    async def trial(
        self, replica: str, family: str, known: str | None, tried: Tried | None, wait_seconds: float
    ) -> tuple[Rollout | None, Offer | str] | None:
        """See `Offers.trial`."""
        self.tried = tried
        if (self.rollout.id if self.rollout else None) == known:
            await asyncio.sleep(0.001)
            return None
        if self.rollout is None:
            return None, ""
        return self.rollout, await self.version(family, self.rollout.version)
