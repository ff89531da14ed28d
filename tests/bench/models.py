"""The models that every server of the benchmark runs: `python -m tests.bench.models FOLDER` trains them.

The same trees and the same recurrent network for all; only the runtime differs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from raysys import families
from raysys.families.base import Parts

SEED = 7
TREES = {"n_estimators": 200, "max_depth": 4, "learning_rate": 0.05}
GRU = {
    "model": "gru",
    "layers": 2,
    "cells": 28,
    "learning_rate": 0.01,
    "windows_per_epoch": 512,
}


def main(folder: Path) -> None:
    """Train both models and write them for the framework and as ONNX."""
    folder.mkdir(parents=True, exist_ok=True)
    _insurance(folder)
    _atmos(folder)


def _insurance(folder: Path) -> None:
    import pandas as pd

    family = families.get("insurance")
    table, _ = family.prepare(pd.DataFrame(family.sample(SEED)))
    fitted = family.fit(TREES, family.split(table, SEED), SEED)
    fitted.get_booster().save_model(folder / "insurance.ubj")
    (folder / "insurance.onnx").write_bytes(family.to_onnx(fitted))


def _atmos(folder: Path) -> None:
    family = families.get("atmos")
    fitted: Any = family.fit(GRU, _waves(), SEED)
    fitted.core.save(folder / "atmos.keras")
    (folder / "atmos.scale").write_text(str(fitted.scale))
    (folder / "atmos.onnx").write_bytes(family.to_onnx(fitted))


def _waves() -> Parts:
    rng = np.random.default_rng(SEED)
    hours = np.arange(2000)
    values = 12 + 6 * np.sin(hours * np.pi / 12) + rng.normal(0, 1, hours.size)
    windows = np.lib.stride_tricks.sliding_window_view(values.astype(np.float32), 96)
    pair = (windows[:, :72], windows[:, 72:])
    return Parts(pair, pair, pair)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
