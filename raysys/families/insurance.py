"""The family `insurance`: a person's yearly medical charges from six facts, by boosted trees."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from raysys.families.base import Array, Config, Gate, Integer, Parts, Predict, Real, Space, Table
from raysys.families.tabular import Tabular

SAMPLE_ROWS = 1338


class Person(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request: age in years, body mass index in kg/m2, number of children; names or codes.

    The codes are those of the original system: the places of the names in alphabetical order.
    """

    age: Annotated[int, msgspec.Meta(ge=0, le=120)]
    sex: Literal["female", "male", 0, 1]
    bmi: Annotated[float, msgspec.Meta(ge=5, le=100)]
    children: Annotated[int, msgspec.Meta(ge=0, le=20)]
    smoker: Literal["no", "yes", 0, 1]
    region: Literal["northeast", "northwest", "southeast", "southwest", 0, 1, 2, 3]


class Insurance(Tabular):
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
    framework_packages = ("xgboost", "xgboost-cpu", "onnxmltools", "scikit-learn")

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

    def strata(self, x: Array, y: Array) -> tuple[NDArray[Any], ...]:
        """Spread smokers evenly over the folds, then charges.

        With plain sampling a few very high charges decide the R2 of a fold: measured .79 to .93 by
        luck alone, and .84 to .89 so.
        """
        return y[:, 0], x[:, self.columns().index("smoker")]

    def fit(self, config: Config, parts: Parts, seed: int) -> Any:
        """Train on all rows but the test rows."""
        x, y = parts.train
        return _booster(config, seed).fit(x, y)

    def to_onnx(self, fitted: Any) -> bytes:
        """Return the trees as one ensemble operator, `input` [rows, 6] to `output` [rows, 1]."""
        import onnxmltools
        from onnxmltools.convert.common.data_types import FloatTensorType

        from raysys.families.onnx_graphs import rename_output

        inputs = [("input", FloatTensorType([None, len(self.columns())]))]
        return rename_output(
            onnxmltools.convert_xgboost(fitted, self.name, inputs, target_opset=15), "output"
        )

    def baselines(self, parts: Parts, seed: int) -> dict[str, Predict]:
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
        return {
            **super().baselines(parts, seed),
            "linear": lambda rows: np.asarray(linear.predict(rows), np.float32),
        }

    def plots(self, fitted: Any, parts: Parts, predicted: Array) -> dict[str, Any]:
        """Draw how much each column helped the trees, and predictions against the truth."""
        from raysys.families import figures

        gain = dict(zip(self.columns(), map(float, fitted.feature_importances_), strict=True))
        return {
            "importance": figures.bars(gain, title="Share of the gain by column"),
            "truth": figures.against(parts.test[1], predicted, unit=self.unit, title=self.title),
        }


def _booster(config: Config, seed: int) -> Any:
    import xgboost

    # One thread: a thousand rows gain nothing from a second one, and a Ray task owns one CPU.
    return xgboost.XGBRegressor(**config, tree_method="hist", n_jobs=1, random_state=seed)
