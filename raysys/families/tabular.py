"""What families of independent rows share: columns, codes, folds, the mean as a baseline. No single family is here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_origin

import msgspec
import numpy as np
from numpy.typing import NDArray

from raysys.families.base import Array, Config, Family, Parts, Predict, Report, Table
from raysys.records import Gap

if TYPE_CHECKING:
    import pandas as pd

FOLDS = 5


class Column(NamedTuple):
    """A field of the request: its name, the type of its numbers or, for a Literal, texts and codes."""

    name: str
    dtype: str = "float64"
    names: tuple[str, ...] = ()
    codes: Mapping[Any, int] = {}


class Tabular(Family):
    """A family whose rows are examples of their own: the fields of `request`, and the label.

    A subclass says what may be searched, how to fit and how to export; `request` is a frozen
    msgspec Struct whose fields are numbers or Literals. A Literal's texts count 0, 1, 2, … in
    their order, and a whole number in it stands for the text of that number.
    """

    data: Table
    many = True

    def columns(self) -> tuple[str, ...]:
        """Return the fields of a request, in the order of the model's input."""
        return tuple(column.name for column in columns(self.request))

    def prepare(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[Gap]]:
        """Keep a request's fields and the label, texts for codes, ordered by their values."""
        order = [*self.columns(), self.data.label]
        table = rows[order].copy()
        for name, dtype, names, codes in columns(self.request):
            if names:
                table[name] = [names[codes[value]] for value in table[name]]
            else:
                table[name] = table[name].astype(np.dtype(dtype))
        table[self.data.label] = table[self.data.label].astype("float64")
        return table.sort_values(order, kind="stable").reset_index(drop=True), []

    def split(self, table: pd.DataFrame, seed: int) -> Parts:
        """Hold out a fifth of the rows; a search folds the rest."""
        x = np.column_stack(
            [_coded(table[column.name], column) for column in columns(self.request)]
        )
        y = table[[self.data.label]].to_numpy(np.float32)
        test = self.folds(x, y, seed) == 0
        return Parts(train=(x[~test], y[~test]), validation=(x[:0], y[:0]), test=(x[test], y[test]))

    def strata(self, x: Array, y: Array) -> tuple[NDArray[Any], ...]:  # noqa: ARG002  a subclass may look at both
        """Return the keys, the last one first in weight, in whose order every fold covers the rows evenly."""
        return (y[:, 0],)

    def folds(self, x: Array, y: Array, seed: int) -> NDArray[np.intp]:
        """Give every row one of five folds: of five neighbours in the strata's order, each goes to another."""
        order = np.lexsort(self.strata(x, y))
        groups = np.tile(np.arange(FOLDS), (-(-len(order) // FOLDS), 1))
        folds = np.empty(len(order), np.intp)
        folds[order] = np.random.default_rng(seed).permuted(groups, axis=1).ravel()[: len(order)]
        return folds

    def validate(self, config: Config, parts: Parts, seed: int, report: Report) -> None:
        """Report the mean of the metric over five folds of the training rows."""
        x, y = parts.train
        fold = self.folds(x, y, seed + 1)
        errors = []
        for number in range(FOLDS):
            inside = fold != number
            rest = Parts((x[inside], y[inside]), parts.validation, parts.validation)
            predicted = self.predict(self.fit(config, rest, seed), x[~inside])
            errors.append(self.scores(y[~inside], predicted)[self.metric])
        report(1, float(np.mean(errors)))

    def predict(self, fitted: Any, x: Array) -> Array:
        """Return the framework's own answers, shape [rows, 1]."""
        return np.asarray(fitted.predict(x), np.float32).reshape(-1, 1)

    def baselines(self, parts: Parts, seed: int) -> dict[str, Predict]:  # noqa: ARG002  nothing random here
        """Return the mean of the training rows."""
        mean = parts.train[1].mean(axis=0)
        return {"mean": lambda rows: np.broadcast_to(mean, (len(rows), 1))}

    def encode(self, rows: list[Any]) -> Array:
        """Turn requests into float32 [rows, columns]: numbers as they are, texts as their codes."""
        fields = columns(self.request)
        return np.array(
            [
                [c.codes[getattr(row, c.name)] if c.names else getattr(row, c.name) for c in fields]
                for row in rows
            ],
            np.float32,
        ).reshape(-1, len(fields))

    def decode(self, output: Array) -> list[Any]:
        """Return one number a row, to a ten-thousandth."""
        return [round(value, 4) for value in output[:, 0].tolist()]


@cache
def columns(request: Any) -> tuple[Column, ...]:
    """Return the columns of a request type."""
    return tuple(_column(field.name, field.type) for field in msgspec.structs.fields(request))


def _column(name: str, kind: Any) -> Column:
    if get_origin(kind) is not Literal:
        whole = int in (kind, *get_args(kind)[:1])
        return Column(name, "int64" if whole else "float64")
    values = get_args(kind)
    names = tuple(value for value in values if isinstance(value, str))
    codes: dict[Any, int] = {text: code for code, text in enumerate(names)}
    codes |= {value: value for value in values if isinstance(value, int)}
    return Column(name, names=names, codes=codes)


def _coded(values: pd.Series[Any], column: Column) -> Array:
    coded = values.map(column.codes) if column.names else values
    return coded.to_numpy(np.float32)
