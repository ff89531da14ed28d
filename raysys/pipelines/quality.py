"""How a family does on live traffic: the error of its versions where the truth is known; nothing is decided here."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
import sqlalchemy as sa

from raysys.artifacts import Artifacts
from raysys.errors import NotFound
from raysys.families.base import Array, Family, Numbers, Predict, Series, Table
from raysys.records import (
    SCORES_TAG,
    SEED_TAG,
    SNAPSHOT_TAG,
    ModelVersion,
    QualityReport,
    QualityWindow,
    Snapshot,
    VersionQuality,
)
from raysys.serving import loader
from raysys.store import predictions, snapshots, truths
from raysys.store.predictions import Logged

BATCH = 2_000
MODEL = "model"  # under this name the scores of a version hold its own
MOST_BASELINES = 8
SMALLEST = 1e-9  # that an error may be divided by
DAY = timedelta(days=1)
# In which a prediction may have truth that counts. Of a table most never get any: these are not read.
_STATES = {True: predictions.SAMPLED, False: (predictions.COMPLETE,)}


# -- live error ------------------------------------------------------------------------------------


class _Joined(NamedTuple):
    """A batch of predictions in the order they were made: what was said, and the truth, NaN where it is unknown."""

    logged: list[Logged]
    said: Numbers
    truth: Numbers


class _Slot(NamedTuple):
    """One window of one version."""

    version: str
    since: datetime
    until: datetime


class _Values(NamedTuple):
    """What is scored of a slot, batch by batch."""

    truth: list[Numbers]
    said: list[Numbers]
    simple: list[Numbers]
    surprises: list[float]


def windows(
    engine: sa.Engine,
    family: Family,
    *,
    version: str | None = None,
    since: datetime,
    until: datetime,
    step: timedelta,
    baseline: Predict | None = None,
) -> list[QualityWindow]:
    """Return how each version did in each window of length `step`, by the time its predictions were made.

    A window without predictions is left out. `baseline` gets the very same inputs.
    """
    spans = list(_spans(since, until, step))
    return _windows(engine, family, version, spans, baseline, None)


def _spans(
    since: datetime, until: datetime, step: timedelta
) -> Iterator[tuple[datetime, datetime]]:
    while since < until:
        yield since, min(since + step, until)
        since += step


def _windows(
    engine: sa.Engine,
    family: Family,
    version: str | None,
    spans: Sequence[tuple[datetime, datetime]],
    baseline: Predict | None,
    largest: Numbers | None,
) -> list[QualityWindow]:
    """Return the windows of these `spans`, which may overlap, from one reading of the predictions."""
    values: dict[_Slot, _Values] = defaultdict(lambda: _Values([], [], [], []))
    since, until = min(start for start, _ in spans), max(end for _, end in spans)
    width = 1
    for batch in _joined(engine, family, version, since, until):
        width = batch.said.shape[1]
        simple = None if baseline is None else _answers(family, baseline, batch)
        for slot, rows in _slots(batch.logged, spans).items():
            _add(values[slot], family, batch, simple, rows)
            if largest is not None:
                values[slot].surprises.append(_surprise(batch, largest, rows))
    counts = {
        _Slot(of, *span): count
        for span in spans
        for of, count in predictions.counts(engine, family.name, *span).items()
        if version in (None, of)
    }
    if isinstance(family.data, Series):
        width = family.data.horizon
    return [_scored(family, slot, *counts[slot], width, values[slot]) for slot in sorted(counts)]


def _slots(
    logged: Sequence[Logged], spans: Sequence[tuple[datetime, datetime]]
) -> dict[_Slot, list[int]]:
    rows: dict[_Slot, list[int]] = defaultdict(list)
    for row, each in enumerate(logged):
        for start, end in spans:
            if start <= each.at < end:
                rows[_Slot(each.version, start, end)].append(row)
    return rows


def _add(
    values: _Values, family: Family, batch: _Joined, simple: Numbers | None, rows: list[int]
) -> None:
    known = _known(family, batch.truth[rows])
    values.truth.append(_picked(family, batch.truth[rows], known))
    values.said.append(_picked(family, batch.said[rows], known))
    if simple is not None:
        values.simple.append(_picked(family, simple[rows], known))


def _surprise(batch: _Joined, largest: Numbers, rows: list[int]) -> float:
    shares = np.abs(batch.said[rows] - batch.truth[rows]) / largest
    return float(np.max(shares, initial=0.0, where=np.isfinite(shares)))


def _known(family: Family, truth: Numbers) -> Any:
    """Say which values count: of a table only rows whose truth is whole, of a series every known hour."""
    known = np.isfinite(truth)
    return known.all(axis=1) if isinstance(family.data, Table) else known


def _picked(family: Family, values: Numbers, known: Any) -> Numbers:
    picked: Numbers = values[known]
    return picked if isinstance(family.data, Table) else picked.reshape(-1, 1)


def _scored(
    family: Family, slot: _Slot, made: int, anchored: int, width: int, values: _Values
) -> QualityWindow:
    return QualityWindow(
        family=family.name,
        version=slot.version,
        since=slot.since,
        until=slot.until,
        predictions=made,
        placed=made if isinstance(family.data, Table) else anchored,
        wanted=made * width,
        values=sum(known.size for known in values.truth),
        error=_error(family, values.truth, values.said),
        baseline_error=_error(family, values.truth, values.simple),
        surprise=max(values.surprises, default=None),
    )


def _error(family: Family, truth: Sequence[Numbers], answers: Sequence[Numbers]) -> float | None:
    """Return the family's metric by the formula that its trainings are scored with."""
    if not answers:
        return None
    y, said = np.concatenate(truth), np.concatenate(answers)
    answered = np.isfinite(said).all(axis=1)
    if not answered.any():
        return None
    # In float64: the charges of an insurance lose half a thousandth in float32.
    scores = family.scores(cast(Array, y[answered]), cast(Array, said[answered]))
    return float(scores[family.metric])


def _joined(
    engine: sa.Engine,
    family: Family,
    version: str | None,
    since: datetime,
    until: datetime,
) -> Iterator[_Joined]:
    found = predictions.batches(
        engine,
        family.name,
        states=_STATES[isinstance(family.data, Series)],
        size=BATCH,
        version=version,
        since=since,
        until=until,
    )
    for batch in found:
        said = family.numbers([logged.outputs for logged in batch])
        known = truths.values(engine, [logged.id for logged in batch])
        truth = np.full(said.shape, np.nan)
        for row, logged in enumerate(batch):
            for position, value in known[logged.id].items():
                truth[row, position] = value
        yield _Joined(batch, said, truth)


def _answers(family: Family, predict: Predict, batch: _Joined) -> Numbers:
    """Return what `predict` makes of the inputs of a batch, NaN where the family takes such an input no more."""
    rows = [_request(family, logged.inputs) for logged in batch.logged]
    taken = [row for row, request in enumerate(rows) if request is not None]
    answers = np.full(batch.said.shape, np.nan)
    if taken:
        answers[taken] = predict(family.encode([rows[row] for row in taken]))
    return answers


def _request(family: Family, inputs: Any) -> Any:
    try:
        return msgspec.convert(inputs, family.request)
    except msgspec.ValidationError:
        return None


# -- other models on the same hours ----------------------------------------------------------------


def replay(
    engine: sa.Engine,
    family: Family,
    onnx: bytes,
    *,
    of_version: str,
    since: datetime,
    until: datetime,
) -> float | None:
    """Return the error that the model in `onnx` would have had on what `of_version` was asked; None without truth.

    Raises ModelRefused for a model that does not load.
    """
    found = windows(
        engine,
        family,
        version=of_version,
        since=since,
        until=until,
        step=until - since,
        baseline=predictor(family, onnx),
    )
    return found[0].baseline_error if found else None


def predictor(family: Family, onnx: bytes) -> Predict:
    """Return the model in `onnx` as something whose answers compare with logged ones; raises ModelRefused."""
    sha256 = hashlib.sha256(onnx).hexdigest()
    model = loader.load(family, "to be replayed", sha256, onnx)

    def predict(x: Array) -> Any:
        return family.numbers(family.decode(model.run(x)))  # rounded as what was logged is

    return predict


# -- the baseline ----------------------------------------------------------------------------------

# A process is asked for the same few baselines every hour, and fitting one takes seconds.
_fitted: dict[tuple[str, str, int], Predict] = {}
_fitting = threading.Lock()


def baseline(artifacts: Artifacts, snapshot: Snapshot, family: Family, seed: int) -> Predict:
    """Return the gate's baseline of `family`, fitted on the training rows of `snapshot`, once a process."""
    key = (family.name, snapshot.hash, seed)
    with _fitting:
        if key not in _fitted:
            from raysys.pipelines import snapshot as tables

            parts = family.split(tables.load(artifacts, snapshot), seed)
            if len(_fitted) >= MOST_BASELINES:
                del _fitted[next(iter(_fitted))]
            _fitted[key] = family.baselines(parts, seed)[family.gate.baseline]
        return _fitted[key]


def baseline_of(
    engine: sa.Engine, artifacts: Artifacts, family: Family, version: ModelVersion, seed: int
) -> Predict | None:
    """Return the baseline that `version` had to beat; None when its snapshot is there no more."""
    try:
        snapshot = snapshots.get(engine, family.name, version.tags.get(SNAPSHOT_TAG, ""))
        return baseline(artifacts, snapshot, family, int(version.tags.get(SEED_TAG, seed)))
    except NotFound:
        return None


# -- errors of one value ---------------------------------------------------------------------------


def largest_errors(
    artifacts: Artifacts, snapshot: Snapshot, family: Family, onnx: bytes, seed: int
) -> Numbers:
    """Return how wrong the model in `onnx` ever was on its test rows, for each place of an answer.

    An hour ahead is wrong by less than a day ahead: each place is measured by its own mean error, and the largest
    such share of any place holds for all. Raises ModelRefused for a model that does not load.
    """
    from raysys.pipelines import snapshot as tables

    x, y = family.split(tables.load(artifacts, snapshot), seed).test
    errors = np.abs(predictor(family, onnx)(x) - y)
    usual = np.maximum(errors.mean(axis=0), SMALLEST)
    largest: Numbers = usual * (errors / usual).max()
    return largest


# -- the report ------------------------------------------------------------------------------------


def report(
    engine: sa.Engine,
    family: Family,
    versions: Sequence[ModelVersion],
    *,
    days: int,
    step: timedelta,
    now: datetime,
    baseline_of: Callable[[ModelVersion], Predict | None] = lambda _version: None,
    largest_of: Callable[[ModelVersion], Numbers | None] = lambda _version: None,
) -> QualityReport:
    """Return how the versions did that were asked in the last `days`, newest first, day by day or by another `step`.

    Windows begin at midnight (UTC), so that a window is the same one in every report. `versions` are those of the
    registry: a version that is there no more has its live error alone. `largest_of` gives a version's largest errors
    for those whose surprises are asked for.
    """
    known = {version.version: version for version in versions}
    until = now.replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    since = until - days * DAY
    asked = predictions.versions(engine, family.name, since)
    return QualityReport(
        family=family.name,
        metric=family.metric,
        unit=family.unit,
        at=now,
        versions=[
            _version_quality(
                engine,
                family,
                version,
                known.get(version),
                since,
                until,
                step,
                baseline_of,
                largest_of,
            )
            for version in sorted(asked, key=_number, reverse=True)
        ],
    )


def _number(version: str) -> tuple[int, str]:
    return (int(version) if version.isdecimal() else -1, version)


def _version_quality(
    engine: sa.Engine,
    family: Family,
    version: str,
    known: ModelVersion | None,
    since: datetime,
    until: datetime,
    step: timedelta,
    baseline_of: Callable[[ModelVersion], Predict | None],
    largest_of: Callable[[ModelVersion], Numbers | None],
) -> VersionQuality:
    simple = baseline_of(known) if known else None
    largest = largest_of(known) if known else None
    whole, steps = (since, until), list(_spans(since, until, step))
    spans = list(dict.fromkeys([*steps, whole]))
    found = _windows(engine, family, version, spans, simple, largest)
    return VersionQuality(
        version=version,
        aliases=known.aliases if known else [],
        test_error=test_error(family, known) if known else None,
        overall=next((each for each in found if (each.since, each.until) == whole), None),
        windows=[each for each in found if (each.since, each.until) in steps],
    )


def test_error(family: Family, version: ModelVersion) -> float | None:
    """Return the error of a version on the test rows of its training, from the tags it was registered with."""
    try:
        return float(json.loads(version.tags[SCORES_TAG])[MODEL][family.metric])
    except (KeyError, ValueError):  # it was registered by hand
        return None


def publish(artifacts: Artifacts, report: QualityReport) -> None:
    """Keep the report of a family for those who cannot fit a baseline themselves, in the place of the one before."""
    artifacts.put(_place(report.family), msgspec.json.encode(report))


def published(artifacts: Artifacts, family: str) -> QualityReport | None:
    """Return the report that was kept last, or None; what another release wrote otherwise counts as none."""
    place = artifacts.uri(_place(family))
    if not artifacts.exists(place):
        return None
    try:
        return msgspec.json.decode(artifacts.get(place), type=QualityReport)
    except msgspec.ValidationError:
        return None


def _place(family: str) -> str:
    return f"quality/{family}.json"
