"""Figures that people look at after a training, by matplotlib; no family and no window is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]


def bars(values: Mapping[str, float], *, title: str) -> Any:
    """Draw one horizontal bar a name, the longest on top."""
    figure, axes = _blank(title)
    ordered = sorted(values.items(), key=lambda item: item[1])
    axes.barh([name for name, _ in ordered], [value for _, value in ordered])
    return figure


def against(truth: Numbers, predicted: Numbers, *, unit: str, title: str) -> Any:
    """Draw predictions over the truth, with the line where both are equal."""
    figure, axes = _blank(title, x=f"truth [{unit}]", y=f"predicted [{unit}]")
    low, high = float(min(truth.min(), predicted.min())), float(max(truth.max(), predicted.max()))
    axes.plot([low, high], [low, high], color="grey", linewidth=1)
    axes.scatter(truth.ravel(), predicted.ravel(), s=8, alpha=0.5)
    return figure


def residuals(truth: Numbers, predicted: Numbers, *, unit: str, title: str) -> Any:
    """Draw the distribution of prediction minus truth."""
    figure, axes = _blank(title, x=f"predicted - truth [{unit}]", y="values")
    axes.hist(np.asarray(predicted - truth).ravel(), bins=60)
    axes.axvline(0, color="grey", linewidth=1)
    return figure


def lines(
    curves: Mapping[str, Sequence[float] | Numbers], *, x: str, y: str, title: str, start: int = 0
) -> Any:
    """Draw one line a name over the whole numbers from `start`."""
    figure, axes = _blank(title, x=x, y=y)
    for name, values in curves.items():
        axes.plot(
            range(start, start + len(values)),
            values,
            label=name,
            marker="." if len(values) < 40 else None,
        )
    axes.legend()
    return figure


def panels(pairs: Sequence[Mapping[str, Numbers]], *, x: str, y: str, title: str) -> Any:
    """Draw a few cases below one another, each with its lines; a line ends where its numbers do."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.2 * len(pairs)), layout="constrained")
    for axes, curves in zip(figure.subplots(len(pairs), squeeze=False).ravel(), pairs, strict=True):
        for name, values in curves.items():
            axes.plot(values, label=name)
        axes.set_ylabel(y)
    axes.set_xlabel(x)
    figure.suptitle(title)
    figure.axes[0].legend()
    return figure


def _blank(title: str, x: str = "", y: str = "") -> tuple[Any, Any]:
    from matplotlib.figure import (
        Figure,
    )  # not pyplot: a Figure of its own is no global and needs no display

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes
