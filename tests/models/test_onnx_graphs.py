"""Graphs built by hand give what the frameworks give, and are quick."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import numpy as np
import pytest

from raysys.families.atmos import HISTORY, HORIZON, Atmos, Forecaster
from raysys.families.base import Parts
from raysys.serving import loader

FAMILY = Atmos()


def days(count: int, seed: int) -> Parts:
    """Return windows of a made-up climate: a daily cycle on a slow walk."""
    draw = np.random.default_rng(seed)
    hours = np.arange(count)
    values = 12 + 5 * np.sin(hours * np.pi / 12) + draw.normal(0, 0.3, count).cumsum() * 0.3
    windows = np.lib.stride_tricks.sliding_window_view(values.astype(np.float32), 96)
    x, y = windows[:, :HISTORY], windows[:, HISTORY:]
    a, b = len(x) * 6 // 10, len(x) * 9 // 10
    return Parts((x[:a], y[:a]), (x[a:b], y[a:b]), (x[b:], y[b:]))


@pytest.fixture(scope="module")
def parts() -> Parts:
    return days(700, seed=1)


def served(fitted: Forecaster, x: Any) -> Any:
    onnx = FAMILY.to_onnx(fitted)
    return loader.load(FAMILY, "test", hashlib.sha256(onnx).hexdigest(), onnx).run(x)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_gru_of_keras_and_of_onnx_agree(
    layers: int, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Atmos, "epochs", 2)
    config = {
        "model": "gru",
        "layers": layers,
        "cells": 8,
        "learning_rate": 0.01,
        "windows_per_epoch": 256,
    }
    fitted = FAMILY.fit(config, parts, seed=1)
    x = parts.test[0]
    assert served(fitted, x) == pytest.approx(FAMILY.predict(fitted, x), abs=1e-4)
    again = FAMILY.fit(config, parts, seed=1)
    assert FAMILY.predict(again, x) == pytest.approx(FAMILY.predict(fitted, x), abs=1e-5)


def test_ridge_of_sklearn_and_of_onnx_agree(parts: Parts) -> None:
    fitted = FAMILY.fit({"model": "ridge", "alpha": 10.0}, parts, seed=1)
    x = parts.test[0]
    assert served(fitted, x) == pytest.approx(FAMILY.predict(fitted, x), abs=1e-4)


def test_model_follows_a_climate_that_it_never_saw(parts: Parts) -> None:
    fitted = FAMILY.fit({"model": "ridge", "alpha": 10.0}, parts, seed=1)
    x = parts.test[0]
    moved = FAMILY.predict(fitted, x + np.float32(20)) - FAMILY.predict(fitted, x)
    assert moved == pytest.approx(np.full(moved.shape, 20), abs=1e-3)


def test_search_reports_every_epoch_and_ridge_once(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Atmos, "epochs", 2)
    reports: list[int] = []
    gru = {name: getattr(values, "low", None) for name, values in FAMILY.space().items()}
    gru |= {"model": "gru", "windows_per_epoch": 256}
    FAMILY.validate(gru, parts, 1, lambda epoch, _: reports.append(epoch))
    FAMILY.validate(FAMILY.candidates()[0], parts, 1, lambda epoch, _: reports.append(epoch))
    assert reports == [1, 2, 1]


def test_persistence_is_the_same_hour_of_yesterday(parts: Parts) -> None:
    x, _ = parts.test
    answers = FAMILY.baselines(parts, seed=1)["persistence"](x)
    assert answers.shape == (len(x), HORIZON)
    assert np.array_equal(answers, x[:, 48:])


def test_largest_gru_of_the_space_answers_in_half_a_millisecond(parts: Parts) -> None:
    import onnxruntime as ort

    from raysys.families.onnx_graphs import Graph

    draw = np.random.default_rng(1)
    cells = 32
    shapes = [(1, cells), (cells, cells)]
    layers = [
        tuple(
            draw.normal(0, 0.1, shape).astype(np.float32)
            for shape in ((inputs, 3 * cells), (cells, 3 * cells), (2, 3 * cells))
        )
        for inputs, _ in shapes
    ]
    graph = Graph(width=HISTORY)
    state = graph.gru_stack("input", layers)  # type: ignore[arg-type]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph.serialise(state, width=cells), options)
    row = {"input": parts.test[0][:1]}
    times = []
    for _ in range(200):
        start = time.perf_counter()
        session.run(None, row)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.0005
