"""What a model must be to serve, and the reason when it is not."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from raysys.errors import ModelRefused
from raysys.families.base import Array
from raysys.serving.loader import load
from tests.unit.serving.tiny import Fruits, Waves, scaled

GOOD = scaled(4, 2.0)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_good_model_runs_rows() -> None:
    model = load(Waves(), "3", sha(GOOD), GOOD)
    rows = np.ones((3, 4), dtype=np.float32)
    assert (model.family, model.version, model.sha256) == ("waves", "3", sha(GOOD))
    assert model.run(rows).tolist() == (rows * 2).tolist()


REFUSED = {
    "another file": (GOOD, sha(b"other"), "SHA-256", "hash"),
    "no model": (b"\x00junk", sha(b"\x00junk"), "ONNX Runtime cannot load it", "load"),
    "cut off": (GOOD[:40], sha(GOOD[:40]), "ONNX Runtime cannot load it", "load"),
    "other width": (scaled(5, 2.0), sha(scaled(5, 2.0)), "its input has the shape", "signature"),
    "other numbers": (scaled(4, 2.0, kind="DOUBLE"), None, "not float32", "signature"),
    "infinite": (scaled(4, float("inf")), None, "infinite", "example"),
}


@pytest.mark.parametrize(("data", "digest", "reason", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_model_is_refused_with_its_reason(
    data: bytes, digest: str | None, reason: str, why: str
) -> None:
    with pytest.raises(ModelRefused, match=reason) as caught:
        load(Waves(), "3", digest or sha(data), data)
    assert caught.value.fields == {"family": "waves", "version": "3", "why": why}


def test_a_model_that_fails_on_the_example_is_refused() -> None:
    class Picky(Fruits):
        def decode(self, output: Array) -> list[float]:
            raise IndexError("column 7")

    data = scaled(2, 1.0)
    with pytest.raises(ModelRefused, match="fails on the family's example: column 7"):
        load(Picky(), "1", sha(data), data)
