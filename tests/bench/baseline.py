"""What a user would write instead: FastAPI with the framework's own model in memory; no Ray, no ONNX.

uvicorn names one of the applications; `RAYSYS_BENCH_MODELS` names the folder of the models.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel, Field

MODELS = "RAYSYS_BENCH_MODELS"
Celsius = Annotated[float, Field(ge=-60, le=60)]
Hours = Annotated[list[Celsius], Field(min_length=72, max_length=72)]


class Person(BaseModel):
    """A row of insurance, in the integer codes that plain servers take."""

    age: int
    sex: int
    bmi: float
    children: int
    smoker: int
    region: int


def insurance() -> FastAPI:
    """XGBoost, one thread a process, the fast way to predict in place."""
    import xgboost

    model = xgboost.Booster(model_file=str(_models() / "insurance.ubj"))
    model.set_param({"nthread": 1})
    app = FastAPI()

    @app.post("/predict/insurance")
    async def predict(row: Person) -> dict[str, Any]:
        x = np.array([[*row.model_dump().values()]], dtype=np.float32)
        return {"result": float(model.inplace_predict(x)[0])}

    return app


def atmos_predict() -> FastAPI:
    """Keras as its tutorials use it: `model.predict` for each request."""
    model = _keras()
    return _atmos(lambda x: model.predict(x, verbose=0))


def atmos_function() -> FastAPI:
    """Keras compiled once by `tf.function`, which is what a careful user writes."""
    import tensorflow as tf

    model = _keras()
    signature = [tf.TensorSpec([1, 72, 1], tf.float32)]
    compiled = tf.function(lambda x: model(x, training=False), input_signature=signature)
    compiled(tf.zeros([1, 72, 1]))
    return _atmos(lambda x: compiled(tf.constant(x)).numpy())


def _atmos(run: Any) -> FastAPI:
    scale = float((_models() / "atmos.scale").read_text())
    app = FastAPI()

    @app.post("/predict/atmos_temperature")
    async def predict(hours: Hours) -> dict[str, Any]:
        x = np.array(hours, dtype=np.float32)
        steps = ((x - x[-1]) / scale)[None, :, None]
        return {"result": (run(steps)[0] * scale + x[-1]).tolist()}

    return app


def _keras() -> Any:
    import keras

    return keras.models.load_model(_models() / "atmos.keras", compile=False)


def _models() -> Path:
    return Path(os.environ[MODELS])
