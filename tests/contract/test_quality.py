"""The live error is what anybody would compute from the tables, on both databases."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from raysys import db
from raysys.artifacts import Artifacts
from raysys.pipelines import quality, snapshot, truth
from raysys.records import Feedback, ModelVersion
from raysys.settings import Settings
from raysys.store.tables import observations, predictions
from tests.contract.ground import ATMOS, DEGREES, HOUR, INSURANCE, crawl, hour, log, price, say
from tests.unit.serving.tiny import Waves, scaled

DAY = 24 * HOUR


@pytest.fixture
def forecasts(engine: sa.Engine, settings: Settings) -> None:
    """Two days of two versions, each forecast worse than the one before; some hours are lost."""
    crawl(engine, 0, 200, lost=(150, 151))
    for number in range(100, 148):
        outputs = [DEGREES[number] + (number % 7) / 10] * 24
        version = "10" if number < 130 else "9"
        log(engine, f"p{number}", number, outputs=outputs, version=version)
    truth.join(engine, ATMOS, settings, now=hour(200))


def recomputed(engine: sa.Engine, version: str, since: dt.datetime, until: dt.datetime) -> float:
    """Return the mean absolute error by another way: every value with its hour, in pandas."""
    with db.reading(engine) as connection:
        made = connection.execute(sa.select(predictions)).mappings().all()
        hours = dict(
            connection.execute(sa.select(observations.c.time, observations.c.temperature)).all()
        )
    rows = [
        {"said": said, "truth": hours.get(each["anchor"] + (place + 1) * HOUR, np.nan)}
        for each in made
        if each["version"] == version and since <= each["at"] < until
        for place, said in enumerate(each["outputs"])
    ]
    frame = pd.DataFrame(rows).dropna()
    return float((frame["said"] - frame["truth"]).abs().mean())


@pytest.mark.usefixtures("forecasts")
def test_windows_equal_an_independent_recomputation(engine: sa.Engine) -> None:
    since, until = hour(96), hour(168)
    found = quality.windows(engine, ATMOS, since=since, until=until, step=DAY)
    assert [(w.version, w.since, w.predictions) for w in found] == [
        ("10", hour(96), 20),
        ("10", hour(120), 10),
        ("9", hour(120), 14),
        ("9", hour(144), 4),
    ]
    for window in found:
        assert window.error == pytest.approx(
            recomputed(engine, window.version, window.since, window.until), abs=1e-6
        )
    assert sum(window.values for window in found) == 48 * 24 - 22 - 21  # of the lost hours
    assert found[0].wanted == 20 * 24
    assert found[0].coverage == 1.0


@pytest.mark.usefixtures("forecasts")
def test_the_baseline_is_scored_on_the_very_same_hours(engine: sa.Engine) -> None:
    given: Any = {"version": "10", "since": hour(96), "until": hour(120), "step": DAY}
    [window] = quality.windows(engine, ATMOS, baseline=lambda x: x[:, -24:], **given)
    errors = [
        abs(DEGREES[number + place + 1 - 24] - DEGREES[number + place + 1])
        for number in range(100, 120)
        for place in range(24)
    ]
    assert window.baseline_error == pytest.approx(np.mean(errors), abs=1e-6)


def test_what_has_no_truth_yet_counts_as_not_covered(engine: sa.Engine, settings: Settings) -> None:
    crawl(engine, 0, 107)
    log(engine, "p", 100)
    log(engine, "q", 100, inputs=[0.0] * 72)
    truth.join(engine, ATMOS, settings, now=hour(107))
    [window] = quality.windows(engine, ATMOS, since=hour(96), until=hour(120), step=DAY)
    assert (window.predictions, window.placed, window.values) == (2, 1, 6)
    assert window.coverage == pytest.approx(6 / 48)
    other = quality.windows(engine, ATMOS, since=hour(120), until=hour(144), step=DAY)
    assert other == []


def test_rows_of_a_table_are_scored_in_full_precision(
    engine: sa.Engine, settings: Settings
) -> None:
    charges = [8123.4567, 21000.0001, 3.25]
    for place, value in enumerate(charges):
        price(engine, f"p{place}", key=f"k{place}")
        said = Feedback(key=f"k{place}", values=[value])
        say(engine, 472, said)
    price(engine, "unknown")
    truth.join(engine, INSURANCE, settings, now=hour(473))
    [window] = quality.windows(engine, INSURANCE, since=hour(456), until=hour(480), step=DAY)
    assert (window.predictions, window.wanted, window.values) == (4, 4, 3)
    expected = INSURANCE.scores(np.array([charges]).T, np.full((3, 1), 9000.0))  # type: ignore[arg-type]
    assert window.error == pytest.approx(expected[INSURANCE.metric], abs=1e-9)


def test_another_model_is_replayed_on_what_a_version_was_asked(
    engine: sa.Engine, settings: Settings
) -> None:
    family, (low, high) = Waves(), (scaled(4, 2.0), scaled(4, 3.0))
    for number in range(5):
        inputs = [float(number), 1.0, 2.0, 3.0]
        outputs = [2.0 * value for value in inputs]
        log(engine, f"p{number}", 470, "waves", inputs=inputs, outputs=outputs, anchor=hour(470))
        truth_of = [3.0 * inputs[0], 3.0, None, 9.5]
        said = Feedback(request_id=f"request-p{number}", values=truth_of)
        say(engine, 471, said, family="waves")
    log(engine, "foreign", 470, "waves", inputs=["no", "more"], outputs=[0.0] * 4)
    truth.join(engine, family, settings, now=hour(472))
    given: Any = {"of_version": "1", "since": hour(470), "until": hour(471)}
    [own] = quality.windows(
        engine, family, since=hour(470), until=hour(471), step=HOUR, version="1"
    )
    assert quality.replay(engine, family, low, **given) == pytest.approx(own.error)
    assert quality.replay(engine, family, high, **given) == pytest.approx(0.5 / 3)
    assert quality.replay(engine, family, high, **{**given, "of_version": "2"}) is None


@pytest.mark.usefixtures("forecasts")
def test_a_report_has_each_version_beside_its_test_error_and_its_baseline(
    engine: sa.Engine, settings: Settings
) -> None:
    artifacts = Artifacts(settings.artifact_root)
    taken = snapshot.take(engine, artifacts, ATMOS, "sample-108", workflow_id="w", now=hour(200))
    tags = {"raysys.scores": json.dumps({"model": {"mae": 1.25}}), "raysys.snapshot": taken.hash}
    known = ModelVersion(
        family="atmos", version="10", run_id="r", sha256="", model_uri="", tags=tags
    )
    found = quality.report(
        engine,
        ATMOS,
        [known],
        days=10,
        step=DAY,
        now=hour(150),
        baseline_of=lambda version: (lambda x: x[:, -24:]) if version is known else None,
    )
    assert [(v.version, v.test_error) for v in found.versions] == [("10", 1.25), ("9", None)]
    ten = found.versions[0]
    assert ten.overall is not None
    assert ten.overall.predictions == sum(window.predictions for window in ten.windows) == 30
    assert ten.overall.baseline_error is not None
    assert all(window.since.hour == 0 for window in ten.windows)
    assert quality.published(artifacts, "atmos") is None
    quality.publish(artifacts, found)
    assert quality.published(artifacts, "atmos") == found


@pytest.mark.usefixtures("forecasts")
def test_a_surprise_is_the_largest_error_of_one_value_by_the_measure_of_its_place(
    engine: sa.Engine,
) -> None:
    known = [
        ModelVersion(family="atmos", version=version, run_id="r", sha256="", model_uri="")
        for version in ("9", "10")
    ]
    usual = np.linspace(1.0, 3.0, 24)
    found = quality.report(
        engine,
        ATMOS,
        known,
        days=10,
        step=DAY,
        now=hour(150),
        largest_of=lambda version: usual if version.version == "10" else None,
    )
    ten, nine = (each.overall for each in found.versions)
    assert ten is not None
    assert nine is not None
    shares = [
        abs(DEGREES[number] + (number % 7) / 10 - DEGREES[number + 1 + place]) / usual[place]
        for number in range(100, 130)
        for place in range(24)
        if number + 1 + place not in (150, 151)
    ]
    assert ten.surprise == pytest.approx(max(shares), abs=1e-6)
    assert nine.surprise is None


def test_the_baseline_of_a_snapshot_is_fitted_once(
    engine: sa.Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raysys.sources.sample import insurance_rows
    from raysys.store import examples

    given: Any = {"source": "file", "workflow_id": None, "now": hour(0)}
    examples.add(engine, family="insurance", rows=insurance_rows(60, 1), **given)
    artifacts = Artifacts(settings.artifact_root)
    taken = snapshot.take(engine, artifacts, INSURANCE, None, workflow_id="w", now=hour(1))
    tags = {"raysys.snapshot": taken.hash, "raysys.seed": "5"}
    version = ModelVersion(
        family="insurance", version="1", run_id="r", sha256="", model_uri="", tags=tags
    )
    fits: list[int] = []
    monkeypatch.setattr(quality, "_fitted", {})
    monkeypatch.setattr(
        type(INSURANCE),
        "baselines",
        lambda self, parts, seed: fits.append(seed) or {self.gate.baseline: lambda x: x[:, :1]},
    )
    of_version: Any = (engine, artifacts, INSURANCE)
    assert quality.baseline_of(*of_version, version, 1) is quality.baseline_of(
        *of_version, version, 2
    )
    assert fits == [5]
    gone = ModelVersion(family="insurance", version="2", run_id="r", sha256="", model_uri="")
    assert quality.baseline_of(*of_version, gone, 1) is None
