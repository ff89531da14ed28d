"""The family `insurance`: a person's yearly medical charges from six facts, by boosted trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from raysys.families.base import (
    Array,
    Config,
    Family,
    Gate,
    Integer,
    Parts,
    Predict,
    Real,
    Report,
    Space,
    Table,
)
from raysys.records import Gap

if TYPE_CHECKING:
    import pandas as pd

# The codes are those of the original system: the places of the names in alphabetical order.
NAMES: dict[str, tuple[str, ...]] = {
    "sex": ("female", "male"),
    "smoker": ("no", "yes"),
    "region": ("northeast", "northwest", "southeast", "southwest"),
}
CODES: dict[str, dict[Any, int]] = {
    field: {
        **{name: code for code, name in enumerate(names)},
        **{code: code for code in range(len(names))},
    }
    for field, names in NAMES.items()
}
FOLDS = 5
SAMPLE_ROWS = 1338


class Person(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request: age in years, body mass index in kg/m2, number of children; names or codes."""

    age: Annotated[int, msgspec.Meta(ge=0, le=120)]
    sex: Literal["female", "male", 0, 1]
    bmi: Annotated[float, msgspec.Meta(ge=5, le=100)]
    children: Annotated[int, msgspec.Meta(ge=0, le=20)]
    smoker: Literal["no", "yes", 0, 1]
    region: Literal["northeast", "northwest", "southeast", "southwest", 0, 1, 2, 3]


class Insurance(Family):
    """Yearly medical charges of one person, in dollars.

    The trees minimise the squared error, although an absolute error would win on MAE: an insurer
    pays the mean of many people, and the median of these skewed charges lies far below it.
    """

    name = "insurance"
    route = "insurance"
    title = "Yearly medical charges of one person"
    data = Table(label="charges")
    request = Person
    example = {
        "age": 19,
        "sex": "female",
        "bmi": 27.9,
        "children": 0,
        "smoker": "yes",
        "region": "southwest",
    }
    unit = "USD"
    # ONNX Runtime adds the trees in another order than XGBoost: measured up to 0.06 USD apart.
    gate = Gate(baseline="linear", margin=0.1, parity=0.5)
    many = True
    framework_packages = ("xgboost", "xgboost-cpu", "onnxmltools", "scikit-learn")

    def prepare(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[Gap]]:
        """Keep a request's fields and the charges, names for codes, ordered by their values."""
        columns = [*self.columns(), self.data.label]
        table = rows[columns].copy()
        for field, names in NAMES.items():
            table[field] = [names[CODES[field][value]] for value in table[field]]
        table = table.astype(
            {"age": "int64", "bmi": "float64", "children": "int64", self.data.label: "float64"}
        )
        return table.sort_values(columns, kind="stable").reset_index(drop=True), []

    def split(self, table: pd.DataFrame, seed: int) -> Parts:
        """Hold out a fifth of the rows, even over smokers and charges; a search folds the rest."""
        x = self.encode(
            [Person(*row) for row in table[list(self.columns())].itertuples(index=False)]
        )
        y = table[[self.data.label]].to_numpy(np.float32)
        test = spread_folds(x, y, seed) == 0
        return Parts(train=(x[~test], y[~test]), validation=(x[:0], y[:0]), test=(x[test], y[test]))

    def sample(self, seed: int) -> list[dict[str, Any]]:
        """Return simulated people, as many as the well-known file has."""
        from raysys.sources.sample import insurance_rows

        return insurance_rows(SAMPLE_ROWS, seed)

    def space(self) -> Space:
        """Vary size, depth, step and the three brakes of the boosting."""
        return {
            "n_estimators": Integer(low=100, high=400),
            "max_depth": Integer(low=2, high=5),
            "learning_rate": Real(low=0.015, high=0.1, log=True),
            "min_child_weight": Integer(low=3, high=30),
            "reg_lambda": Real(low=0.5, high=20.0, log=True),
            "subsample": Real(low=0.6, high=1.0),
        }

    def candidates(self) -> list[dict[str, Any]]:
        """Start from shallow, strongly braked trees, which are hard to beat on a thousand rows."""
        return [
            {
                "n_estimators": 250,
                "max_depth": 3,
                "learning_rate": 0.03,
                "min_child_weight": 10,
                "reg_lambda": 5.0,
                "subsample": 0.8,
            }
        ]

    def validate(self, config: Config, parts: Parts, seed: int, report: Report) -> None:
        """Report the mean MAE over five folds of the training rows."""
        x, y = parts.train
        fold = spread_folds(x, y, seed + 1)
        errors = []
        for number in range(FOLDS):
            inside = fold != number
            model = _booster(config, seed).fit(x[inside], y[inside])
            errors.append(float(np.mean(np.abs(model.predict(x[~inside]) - y[~inside, 0]))))
        report(1, float(np.mean(errors)))

    def fit(self, config: Config, parts: Parts, seed: int) -> Any:
        """Train on all rows but the test rows."""
        x, y = parts.train
        return _booster(config, seed).fit(x, y)

    def predict(self, fitted: Any, x: Array) -> Array:
        """Return XGBoost's own answers, shape [rows, 1]."""
        return np.asarray(fitted.predict(x), np.float32).reshape(-1, 1)

    def to_onnx(self, fitted: Any) -> bytes:
        """Return the trees as one ensemble operator, `input` [rows, 6] to `output` [rows, 1]."""
        import onnxmltools
        from onnxmltools.convert.common.data_types import FloatTensorType

        from raysys.families.onnx_graphs import rename_output

        inputs = [("input", FloatTensorType([None, len(self.columns())]))]
        return rename_output(
            onnxmltools.convert_xgboost(fitted, self.name, inputs, target_opset=15), "output"
        )

    def baselines(self, parts: Parts, seed: int) -> dict[str, Predict]:  # noqa: ARG002  nothing random here
        """Return the mean of the charges, and a linear regression with one column a region."""
        from sklearn.compose import make_column_transformer
        from sklearn.linear_model import LinearRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder

        x, y = parts.train
        region = self.columns().index("region")
        encoder = make_column_transformer(
            (OneHotEncoder(drop="first"), [region]), remainder="passthrough"
        )
        linear = make_pipeline(encoder, LinearRegression()).fit(x, y)
        mean = y.mean(axis=0)
        return {
            "linear": lambda rows: np.asarray(linear.predict(rows), np.float32),
            "mean": lambda rows: np.broadcast_to(mean, (len(rows), 1)),
        }

    def plots(self, fitted: Any, parts: Parts, predicted: Array) -> dict[str, Any]:
        """Draw how much each column helped the trees, and predictions against the truth."""
        from raysys.families import figures

        gain = dict(zip(self.columns(), map(float, fitted.feature_importances_), strict=True))
        return {
            "importance": figures.bars(gain, title="Share of the gain by column"),
            "truth": figures.against(parts.test[1], predicted, unit=self.unit, title=self.title),
        }

    def encode(self, rows: list[Any]) -> Array:
        """Turn people into float32 [rows, 6]: numbers as they are, names as their codes."""
        sex, smoker, region = CODES["sex"], CODES["smoker"], CODES["region"]
        return np.array(
            [
                (p.age, sex[p.sex], p.bmi, p.children, smoker[p.smoker], region[p.region])
                for p in rows
            ],
            np.float32,
        ).reshape(-1, 6)

    def decode(self, output: Array) -> list[Any]:
        """Return dollars, one number a person, to a hundredth of a cent."""
        return [round(value, 4) for value in output[:, 0].tolist()]

    def columns(self) -> tuple[str, ...]:
        """Return the fields of a request, in the order of the model's input."""
        return Person.__struct_fields__


def spread_folds(x: Array, y: Array, seed: int) -> NDArray[np.intp]:
    """Give every row one of five folds so that each fold covers smokers and charges evenly.

    Of any five neighbours in the order of smoker and charges each goes to another fold, drawn by
    `seed`. With plain sampling a few very high charges decide the R2 of a fold: measured .79 to .93
    by luck alone, and .84 to .89 so.
    """
    order = np.lexsort((y[:, 0], x[:, Person.__struct_fields__.index("smoker")]))
    groups = np.tile(np.arange(FOLDS), (-(-len(order) // FOLDS), 1))
    folds = np.empty(len(order), np.intp)
    folds[order] = np.random.default_rng(seed).permuted(groups, axis=1).ravel()[: len(order)]
    return folds


def _booster(config: Config, seed: int) -> Any:
    import xgboost

    # One thread: a thousand rows gain nothing from a second one, and a Ray task owns one CPU.
    return xgboost.XGBRegressor(**config, tree_method="hist", n_jobs=1, random_state=seed)
