"""The family `atmos`: the next 24 hourly temperatures from the last 72, by a GRU or by ridge."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import numpy as np

from raysys.errors import InvalidInput
from raysys.families.base import (
    Array,
    Choice,
    Config,
    Family,
    Gate,
    Integer,
    Parts,
    Predict,
    Real,
    Report,
    Series,
    Space,
)
from raysys.records import Gap

if TYPE_CHECKING:
    import pandas as pd

HISTORY, HORIZON, DAY = 72, 24, 24
LONGEST_FILLED_GAP_HOURS = 6
TRAIN_SHARE, VALIDATION_SHARE = 0.6, 0.3
BATCH = 192
# Neighbouring windows share 95 of 96 hours: every fifth, at all hours of the day, tells as much.
VALIDATION_STRIDE = 5

Celsius = Annotated[float, msgspec.Meta(ge=-60, le=60)]
History = Annotated[list[Celsius], msgspec.Meta(min_length=HISTORY, max_length=HISTORY)]


class Forecaster(NamedTuple):
    """A fitted Keras or scikit-learn model of differences from the last hour, in `scale` degrees."""

    core: Any
    scale: float


AfterEpoch = Callable[[int, Forecaster], None]


class Atmos(Family):
    """Air temperature at one station: 72 hours in, 24 hours out, degrees C, oldest first.

    Models see differences from the last value and give differences from it: a season that was not
    in the training rows is then no extrapolation.
    """

    name = "atmos"
    route = "atmos_temperature"
    title = "Air temperature of the next 24 hours"
    data = Series(column="temperature", history=HISTORY, horizon=HORIZON)
    request = History
    example = [round(12 + 5 * float(np.sin((h - 9) * np.pi / 12)), 1) for h in range(HISTORY)]
    unit = "degC"
    gate = Gate(baseline="persistence", margin=0.1, parity=0.001)
    epochs = 10
    framework_packages = ("tensorflow-cpu", "tensorflow", "keras", "scikit-learn")

    def prepare(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[Gap]]:
        """Return every hour from the first value to the last; gaps up to 6 h are interpolated."""
        import pandas as pd

        column = self.data.column
        known = rows.dropna(subset=[column]).sort_values("time")
        if known.empty:
            message = f"No {column} is stored for {self.name} yet; crawl or import some first."
            raise InvalidInput(message, family=self.name)
        hours = pd.date_range(known["time"].iloc[0], known["time"].iloc[-1], freq="h", name="time")
        values = known.set_index("time")[column].reindex(hours)
        gaps = _gaps(values)
        filled = values.interpolate("linear")
        for gap in gaps:
            if not gap.filled:
                filled[gap.start : gap.end] = np.nan
        return filled.reset_index(), gaps

    def split(self, table: pd.DataFrame, seed: int) -> Parts:  # noqa: ARG002  time decides
        """Cut 60/30/10 by time, then into windows; none crosses a border or misses an hour."""
        values = table[self.data.column].to_numpy(np.float32)
        shares = np.cumsum([0, TRAIN_SHARE, VALIDATION_SHARE])
        ends = [*(len(values) * shares).round().astype(int), len(values)]
        parts = [_windows(values[a:b]) for a, b in pairwise(ends)]
        if min(len(x) for x, _ in parts) == 0:
            raise InvalidInput(
                f"{len(values)} hours are too few for {self.name}: the last tenth of them must hold"
                f" {HISTORY + HORIZON} hours without a hole. Crawl a longer time.",
                family=self.name,
            )
        return Parts(*parts)

    def space(self) -> Space:
        """Vary the GRU's layers, cells and learning rate; an epoch draws 6144 windows."""
        return {
            "model": Choice(values=("gru",)),
            "layers": Integer(low=1, high=2),
            "cells": Integer(low=16, high=32),
            "learning_rate": Real(low=5e-3, high=2e-2, log=True),
            "windows_per_epoch": Choice(values=(6144,)),
        }

    def candidates(self) -> list[dict[str, Any]]:
        """Return a ridge regression, which needs no TensorFlow and is hard to beat."""
        return [{"model": "ridge", "alpha": 10.0}]

    def validate(self, config: Config, parts: Parts, seed: int, report: Report) -> None:
        """Report the MAE on the validation windows after each epoch; ridge has one epoch."""
        x, y = (part[::VALIDATION_STRIDE] for part in parts.validation)

        def score(epoch: int, fitted: Forecaster) -> None:
            report(epoch, float(np.mean(np.abs(self.predict(fitted, x) - y))))

        _fit(config, *parts.train, seed, score)

    def fit(self, config: Config, parts: Parts, seed: int) -> Forecaster:
        """Train on the windows of training and validation."""
        pairs = zip(parts.train, parts.validation, strict=True)
        x, y = (np.concatenate(pair) for pair in pairs)
        return _fit(config, x, y, seed, lambda _epoch, _fitted: None)

    def predict(self, fitted: Forecaster, x: Array) -> Array:
        """Return degrees C, shape [rows, 24]."""
        last = x[:, -1:]
        steps = (x - last) / np.float32(fitted.scale)
        if hasattr(fitted.core, "coef_"):
            answer = fitted.core.predict(steps)
        else:
            answer = fitted.core.predict(steps[..., None], batch_size=2048, verbose=0)
        return np.asarray(answer, np.float32) * np.float32(fitted.scale) + last

    def to_onnx(self, fitted: Forecaster) -> bytes:
        """Return one graph from raw degrees to raw degrees; a GRU becomes native GRU operators."""
        from raysys.families.onnx_graphs import Graph

        graph = Graph(width=HISTORY)
        bounds = (graph.constant([edge], np.int64) for edge in (HISTORY - 1, HISTORY, 1))
        last = graph.apply("Slice", "input", *bounds)
        scale = graph.constant(fitted.scale)
        steps = graph.apply("Div", graph.apply("Sub", "input", last), scale)
        if hasattr(fitted.core, "coef_"):
            kernel, bias = fitted.core.coef_.T, fitted.core.intercept_
        else:
            *grus, dense = (layer.get_weights() for layer in fitted.core.layers)
            kernel, bias = dense
            steps = graph.gru_stack(steps, grus)
        answer = graph.apply("Mul", graph.dense(steps, kernel, bias), scale)
        return graph.serialise(graph.apply("Add", answer, last), width=HORIZON)

    def baselines(self, parts: Parts, seed: int) -> dict[str, Predict]:
        """Return persistence (the same hour yesterday) and a plain ridge regression."""
        ridge = _fit({"model": "ridge", "alpha": 1.0}, *parts.train, seed, lambda _e, _f: None)
        return {
            "persistence": lambda x: x[:, -DAY:],
            "ridge": lambda x: self.predict(ridge, x),
        }

    def plots(self, fitted: Any, parts: Parts, predicted: Array) -> dict[str, Any]:  # noqa: ARG002
        """Draw four forecasts against the truth, and the error by hour ahead."""
        from raysys.families import figures

        x, y = parts.test
        gap = np.full(HISTORY, np.nan)
        cases = [
            {
                "history": x[row],
                "truth": np.concatenate([gap, y[row]]),
                "forecast": np.concatenate([gap, predicted[row]]),
            }
            for row in np.linspace(0, len(x) - 1, 4).astype(int)
        ]
        by_hour = {
            "model": np.abs(predicted - y).mean(axis=0),
            "persistence": np.abs(x[:, -DAY:] - y).mean(axis=0),
        }
        return {
            "forecast": figures.panels(cases, x="hour", y=self.unit, title=self.title),
            "error_by_hour": figures.lines(
                by_hour, x="hours ahead", y=f"MAE [{self.unit}]", title="Error by lead", start=1
            ),
        }

    def encode(self, rows: list[Any]) -> Array:
        """Turn lists of 72 degrees into float32 [rows, 72]."""
        return np.array(rows, np.float32).reshape(-1, HISTORY)

    def decode(self, output: Array) -> list[Any]:
        """Return 24 degrees a row, to a ten-thousandth."""
        return [[round(value, 4) for value in row] for row in output.tolist()]

    def columns(self) -> tuple[str, ...]:
        """Return `t-71` to `t-0`: the temperature so many hours before the last one."""
        return tuple(f"t-{hours}" for hours in reversed(range(HISTORY)))


def _gaps(values: pd.Series[float]) -> list[Gap]:
    missing = np.concatenate([[False], values.isna().to_numpy(), [False]])
    starts, ends = np.flatnonzero(missing[1:] != missing[:-1]).reshape(-1, 2).T
    return [
        Gap(
            column=str(values.name),
            start=values.index[start].to_pydatetime(),
            end=values.index[end - 1].to_pydatetime(),
            hours=int(end - start),
            filled=bool(end - start <= LONGEST_FILLED_GAP_HOURS),
        )
        for start, end in zip(starts, ends, strict=True)
    ]


def _windows(values: Array) -> tuple[Array, Array]:
    length = HISTORY + HORIZON
    if len(values) < length:
        return np.empty((0, HISTORY), np.float32), np.empty((0, HORIZON), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(values, length)
    whole = windows[np.isfinite(windows).all(axis=1)]
    # Contiguous: Ray hands such arrays to the trials without a copy.
    return np.ascontiguousarray(whole[:, :HISTORY]), np.ascontiguousarray(whole[:, HISTORY:])


def _fit(config: Config, x: Array, y: Array, seed: int, after_epoch: AfterEpoch) -> Forecaster:
    last = x[:, -1:]
    scale = float(np.std(x - last))
    fit = _fit_ridge if config["model"] == "ridge" else _fit_gru
    return fit(config, (x - last) / scale, (y - last) / scale, scale, seed, after_epoch)


def _fit_ridge(
    config: Config, x: Array, y: Array, scale: float, _seed: int, after_epoch: AfterEpoch
) -> Forecaster:
    from sklearn.linear_model import Ridge

    fitted = Forecaster(Ridge(alpha=config["alpha"]).fit(x, y), scale)
    after_epoch(1, fitted)
    return fitted


def _fit_gru(
    config: Config, x: Array, y: Array, scale: float, seed: int, after_epoch: AfterEpoch
) -> Forecaster:
    keras = _keras()
    keras.backend.clear_session()  # a reused trial actor would keep the graphs of its past trials
    keras.utils.set_random_seed(seed)
    draw = np.random.default_rng(seed)
    size = min(config["windows_per_epoch"], len(x))
    model = _gru(keras, config, steps=Atmos.epochs * -(-size // BATCH))
    for epoch in range(1, Atmos.epochs + 1):
        rows = draw.choice(len(x), size, replace=False)
        model.fit(x[rows, :, None], y[rows], batch_size=BATCH, verbose=0, shuffle=False)
        after_epoch(epoch, Forecaster(model, scale))
    return Forecaster(model, scale)


def _gru(keras: Any, config: Config, steps: int) -> Any:
    grus = [
        keras.layers.GRU(config["cells"], return_sequences=layer < config["layers"])
        for layer in range(1, config["layers"] + 1)
    ]
    model = keras.Sequential([keras.layers.Input((HISTORY, 1)), *grus, keras.layers.Dense(HORIZON)])
    rate = keras.optimizers.schedules.CosineDecay(config["learning_rate"], steps)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss="mae")
    return model


@cache
def _keras() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))  # Ray sets it to the task's CPUs
    with suppress(RuntimeError):  # the process used TensorFlow before: its pools stay as they are
        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    tensorflow.get_logger().setLevel("ERROR")  # it warns of the second model of a process
    import keras

    return keras
