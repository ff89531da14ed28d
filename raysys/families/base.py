"""What a model family is: the one extension point. Everything that differs between models is behind these methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from raysys.errors import Conflict
from raysys.records import Gap, Record

if TYPE_CHECKING:  # pandas costs 0.4 s and 60 MB: replicas import this module and need none of it
    import pandas as pd

Array = NDArray[np.float32]
Numbers = NDArray[np.float64]
Config = Mapping[str, Any]
Report = Callable[[int, float], None]
Predict = Callable[[Array], Array]


class Integer(Record, frozen=True):
    """A whole number of a search space, from `low` to `high` included."""

    low: int
    high: int


class Real(Record, frozen=True):
    """A real number of a search space; `log` spreads it over orders of magnitude."""

    low: float
    high: float
    log: bool = False


class Choice(Record, frozen=True):
    """One of the given values."""

    values: tuple[Any, ...]


Space = Mapping[str, Integer | Real | Choice]


class Gate(Record, frozen=True):
    """What a new version must do before it may serve.

    `baseline` is the name of the baseline to beat on the held-out rows by `margin` (0.1: an error 10 % lower), and
    `parity` the largest absolute difference allowed between the ONNX model and the framework's, in the target's unit.
    """

    baseline: str
    margin: float
    parity: float


class Series(Record, frozen=True):
    """Rows are the hours of one series; a model sees `history` hours of `column` and gives the next `horizon`."""

    column: str
    history: int
    horizon: int


class Table(Record, frozen=True):
    """Rows are independent examples: the fields of the family's `request`, and the column `label` to predict."""

    label: str


class Parts:
    """The arrays of one training: float32, rows first. `test` is never seen before the gate.

    For a `Table` family, `validation` may be empty: the search then validates by folds of `train`.
    """

    def __init__(
        self, train: tuple[Array, Array], validation: tuple[Array, Array], test: tuple[Array, Array]
    ) -> None:
        self.train = train
        self.validation = validation
        self.test = test


class Family(ABC):
    """A kind of model, from its rows to its answers. An instance holds no state and costs nothing to make.

    A module that defines a family must import in well under a second and without any training framework: replicas
    import it. Frameworks are imported inside `fit`, `to_onnx` and `baselines`.
    """

    name: str
    """The name in the CLI, the registry and the database: lower case, digits and underscores."""
    route: str
    """The last part of the HTTP path: `/predict/{route}`."""
    title: str
    """One line for people."""
    data: Series | Table
    """The shape of the rows, which decides how they are stored, imported and crawled."""
    request: Any
    """The type of one request body, as msgspec decodes it: a frozen Struct, or a list with its bounds."""
    example: Any
    """One valid request body, as JSON would give it; the model is warmed with it and the API documents it."""
    metric: str = "mae"
    """The name of the metric that the search, the baselines and the gate compare; lower is better."""
    unit: str = ""
    """The unit of the target."""
    gate: Gate
    epochs: int = 1
    """Largest number of reports of one trial; more than one lets ASHA stop a bad trial early."""
    many: bool = False
    """Whether a request may be a list of rows, answered in order."""
    framework_packages: tuple[str, ...] = ()
    """Distributions whose versions are logged with a model."""

    # -- data ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def prepare(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[Gap]]:
        """Turn stored rows into the table of a snapshot; return it with the gaps that were found (filled or not).

        The result depends on the rows alone, not on their order.
        """

    @abstractmethod
    def split(self, table: pd.DataFrame, seed: int) -> Parts:
        """Cut a snapshot's table into arrays; the same table and seed give the same arrays."""

    def sample(self, seed: int) -> list[dict[str, Any]]:
        """Return simulated rows for the offline demo; none for a family that is crawled or has no simulation."""
        return []

    # -- training --------------------------------------------------------------------------------------------------

    @abstractmethod
    def space(self) -> Space:
        """Return what the search may vary."""

    def candidates(self) -> list[dict[str, Any]]:
        """Return configurations that are tried beside the search, before it."""
        return []

    @abstractmethod
    def validate(self, config: Config, parts: Parts, seed: int, report: Report) -> None:
        """Try `config`: call `report(epoch, metric)` at least once with the metric on validation rows.

        `report` may not return: a trial that is stopped early ends there.
        """

    @abstractmethod
    def fit(self, config: Config, parts: Parts, seed: int) -> Any:
        """Train the final model with `config`; the test rows are not used."""

    @abstractmethod
    def predict(self, fitted: Any, x: Array) -> Array:
        """Return the framework's own answers for encoded rows, for the parity check."""

    @abstractmethod
    def to_onnx(self, fitted: Any) -> bytes:
        """Return `fitted` as ONNX: one float32 input, rows first, and one float32 output, rows first."""

    @abstractmethod
    def baselines(self, parts: Parts, seed: int) -> dict[str, Predict]:
        """Return the simple ways that a model has to beat, fitted on the training rows."""

    def scores(self, y: Array, predicted: Array) -> dict[str, float]:
        """Return the metrics of predictions against the truth: `mae`, `rmse`, `r2`."""
        error = predicted.astype(np.float64) - y.astype(np.float64)
        spread = float(np.sum((y - y.mean(axis=0)) ** 2))
        return {
            "mae": float(np.mean(np.abs(error))),
            "rmse": float(np.sqrt(np.mean(error**2))),
            "r2": 1.0 - float(np.sum(error**2)) / spread if spread else 0.0,
        }

    def plots(self, fitted: Any, parts: Parts, predicted: Array) -> dict[str, Any]:
        """Return matplotlib figures to log with the model, by file name without suffix."""
        return {}

    # -- serving ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, rows: list[Any]) -> Array:
        """Turn decoded requests into the model's input, one row each: the only preprocessing there is.

        Raises InvalidInput where a row is well-formed but not acceptable.
        """

    @abstractmethod
    def decode(self, output: Array) -> list[Any]:
        """Turn the model's output into one JSON answer a row."""

    def columns(self) -> tuple[str, ...]:
        """Return the names of the model's input columns, for drift and for people."""
        return ()

    def numbers(self, answers: list[Any]) -> Numbers:
        """Turn answers back into what `decode` was given, [rows, values], to compare them with the truth.

        Raises Conflict for answers that are neither numbers nor lists of them: such a family says itself how.
        """
        try:
            return np.asarray(answers, np.float64).reshape(len(answers), -1)
        except (TypeError, ValueError) as error:
            raise Conflict(
                f"The answers of {self.name} are no numbers: its family has to define `numbers`.",
                family=self.name,
            ) from error


Alias = Literal["champion", "challenger"]
