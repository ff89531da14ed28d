"""A station, its forecasts and what is said of them: what the tests of truth and quality stand on."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from raysys import families
from raysys.records import Feedback
from raysys.store import feedback, observations, predictions
from raysys.store.tables import WEATHER_COLUMNS
from tests.conftest import NOW

ATMOS, INSURANCE = families.get("atmos"), families.get("insurance")
HOUR = dt.timedelta(hours=1)
START = NOW - 20 * 24 * HOUR
DEGREES = np.round(np.cumsum(np.random.default_rng(3).normal(0, 1, 20 * 24 + 60)), 1)


def hour(number: int) -> dt.datetime:
    return START + number * HOUR


def crawl(
    engine: sa.Engine, first: int, last: int, lost: tuple[int, ...] = (), **changed: Any
) -> None:
    """Store the hours from `first` to before `last`, but those `lost`."""
    numbers = [number for number in range(first, last) if number not in lost]
    frame = pd.DataFrame({"time": pd.to_datetime([hour(n) for n in numbers])})
    frame = frame.assign(**dict.fromkeys(WEATHER_COLUMNS, 1.0) | {"temperature": DEGREES[numbers]})
    given = {
        "family": "atmos",
        "source": "sample",
        "series": "sample-108",
        "frame": frame,
        "rejections": [],
        "days": [],
        "workflow_id": "w",
        "now": hour(last),
    }
    observations.store_window(engine, **given | changed)


def log(engine: sa.Engine, id: str, number: int, family: str = "atmos", **changed: Any) -> None:
    """Log a forecast made in hour `number` of what follows it."""
    row = {
        "id": id,
        "request_id": f"request-{id}",
        "family": family,
        "version": "1",
        "at": hour(number) + 7 * HOUR / 60,
        "latency_ms": 1.0,
        "inputs": DEGREES[number - 71 : number + 1].tolist() if number > 70 else [],
        "outputs": [0.0] * 24,
    }
    predictions.append_many(engine, [{**row, **changed}])


def price(engine: sa.Engine, id: str, **changed: Any) -> None:
    """Log a prediction of insurance."""
    log(engine, id, 470, "insurance", inputs=INSURANCE.example, outputs=9000.0, **changed)


def say(engine: sa.Engine, number: int, *said: Feedback, family: str = "insurance") -> Any:
    return feedback.add(engine, family, said, source="test", now=hour(number))
