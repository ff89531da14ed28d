"""Predictions and what came of them: each finds its truth among hours crawled later and feedback sent in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
import numpy as np
import sqlalchemy as sa

from raysys import db
from raysys.errors import InvalidInput
from raysys.families.base import Family, Series, Table
from raysys.records import JoinReport
from raysys.settings import Settings
from raysys.sources import series_name
from raysys.store import feedback, observations, predictions, truths
from raysys.store.feedback import Kept
from raysys.store.predictions import Logged
from raysys.store.truths import Truth

BATCH = 500
MOST_OF_A_BATCH = 20_000  # predictions that one batch of feedback may be about: a key may be common
HOUR = timedelta(hours=1)
# Feedback may come before its prediction is written, which takes seconds, or minutes when the
# database was away; a source may bring an hour later than the hours after it.
PATIENCE = timedelta(days=1)
_ZERO = np.float32(0)  # added so that -0.0, which is other bytes, is 0.0


def join(engine: sa.Engine, family: Family, settings: Settings, *, now: datetime) -> JoinReport:
    """Bring every truth there is by `now` to the predictions of `family`; harmless to repeat.

    Predictions that wait for longer than `truth_wait_days` are given up with what they have.
    """
    report = JoinReport(family=family.name)
    if not isinstance(family.data, Series):
        predictions.take_all(engine, family.name)
        report = _hear(engine, family, report, now)
    else:
        per_hour = settings.truth_per_hour
        skipped = predictions.take_sample(engine, family.name, per_hour=per_hour, now=now)
        report = _hear(engine, family, _more(report, skipped=skipped), now)
        report = _observe(engine, family, family.data, series_name(settings), report, settings)
    before = now - timedelta(days=settings.truth_wait_days)
    return _more(report, expired=predictions.expire(engine, family.name, before))


def width(family: Family, outputs: object) -> int:
    """Return how many values an answer of `family` has."""
    if isinstance(family.data, Series):
        return family.data.horizon
    return int(family.numbers([outputs]).shape[1])


def _more(report: JoinReport, **counts: int) -> JoinReport:
    return msgspec.structs.replace(
        report, **{name: getattr(report, name) + count for name, count in counts.items()}
    )


# -- feedback --------------------------------------------------------------------------------------


def _hear(engine: sa.Engine, family: Family, report: JoinReport, now: datetime) -> JoinReport:
    """Bring what was sent in to the predictions that it is about."""
    for batch in feedback.batches(engine, family.name, BATCH):
        report = _hear_batch(engine, family, report, batch, now)
    return report


def _hear_batch(
    engine: sa.Engine, family: Family, report: JoinReport, batch: Sequence[Kept], now: datetime
) -> JoinReport:
    with db.writing(engine) as connection:
        meant = _meant(connection, family.name, batch)
        told = [
            (said, prediction, width(family, prediction.outputs))
            for said in batch
            for prediction in meant[said.id]
        ]
        said = [t for each in told for t in _truths(*each)]
        surplus = sum(max(len(said.values) - values, 0) for said, _, values in told)
        counts = truths.tell(connection, said)
        full = {prediction.id: values for _, prediction, values in told}
        spoken_of = {prediction.id: prediction for _, prediction, _ in told}
        complete = _mark(connection, family.data, spoken_of, full)
        outcomes = {
            each.id: feedback.MATCHED if meant[each.id] else feedback.UNMATCHED
            for each in batch
            if meant[each.id] or each.at < now - PATIENCE
        }
        feedback.settle(connection, outcomes)
    matched = sum(bool(meant[each.id]) for each in batch)
    return _more(
        report,
        matched=matched,
        unmatched=len(batch) - matched,
        surplus=surplus,
        completed=complete,
        **counts._asdict(),
    )


def _meant(
    connection: sa.Connection, family: str, batch: Sequence[Kept]
) -> dict[str, list[Logged]]:
    """Return the predictions that each piece of feedback is about, by its id."""
    names = {
        "request_id": [each.request_id for each in batch if each.request_id is not None],
        "key": [each.key for each in batch if each.key is not None],
    }
    found: dict[tuple[str, str | None, int], list[Logged]] = defaultdict(list)
    for logged in predictions.spoken_of(connection, family, names, MOST_OF_A_BATCH):
        found["request_id", logged.request_id, logged.row].append(logged)
        found["key", logged.key, logged.row].append(logged)
    return {
        each.id: found["request_id", each.request_id, each.row]
        if each.request_id is not None
        else found["key", each.key, each.row]
        for each in batch
    }


def _truths(said: Kept, prediction: Logged, values: int) -> list[Truth]:
    return [
        Truth(prediction.id, position, value, said.source, said.at)
        for position, value in enumerate(said.values[:values])
        if value is not None
    ]


def _mark(
    connection: sa.Connection,
    data: Series | Table,
    spoken_of: Mapping[str, Logged],
    full: Mapping[str, int],
) -> int:
    """Note which of these predictions have their whole truth now; return how many had not."""
    known = truths.known(connection, list(spoken_of))
    states = {
        id: predictions.COMPLETE if len(known[id]) >= full[id] else _state(data, prediction)
        for id, prediction in spoken_of.items()
    }
    changed = {id: state for id, state in states.items() if state != spoken_of[id].truth}
    predictions.mark(connection, changed)
    return sum(state == predictions.COMPLETE for state in changed.values())


def _state(data: Series | Table, prediction: Logged) -> str:
    """Return the state of a prediction that has a part of its truth."""
    if prediction.truth not in (None, predictions.SKIPPED):
        return prediction.truth
    # What was not of the sample is so now: somebody cared for its truth.
    to_place = isinstance(data, Series) and prediction.anchor is None
    return predictions.UNPLACED if to_place else predictions.WAITING


# -- hours crawled later ---------------------------------------------------------------------------


def _observe(
    engine: sa.Engine,
    family: Family,
    data: Series,
    series: str,
    report: JoinReport,
    settings: Settings,
) -> JoinReport:
    """Place the inputs in the series, and bring the hours that followed."""
    newest = observations.span(engine, series)[1]
    if newest is None:
        return report
    reach = timedelta(days=settings.truth_wait_days)
    unplaced, waiting = (predictions.UNPLACED,), (predictions.WAITING,)
    for batch in predictions.batches(engine, family.name, states=unplaced, size=BATCH):
        anchors = _anchors(engine, family, data, series, batch, reach)
        predictions.place(engine, anchors)
        report = _more(report, placed=len(anchors), unplaced=len(batch) - len(anchors))
    given_up = predictions.expire(engine, family.name, newest - PATIENCE, unplaced)
    report = _more(report, expired=given_up)
    for batch in predictions.batches(engine, family.name, states=waiting, size=BATCH):
        ready = [each for each in batch if each.anchor is not None and each.anchor < newest]
        report = _observe_batch(engine, data, series, report, ready)
    return report


def _anchors(
    engine: sa.Engine,
    family: Family,
    data: Series,
    series: str,
    batch: Sequence[Logged],
    reach: timedelta,
) -> dict[str, datetime]:
    """Return the hour of the last input value of those predictions whose input the series has.

    Of several places it is the newest before the prediction, and none older than `reach`.
    """
    places = _places(engine, family, data, series, batch[0].at - reach, batch[-1].at)
    found = {}
    for logged in batch:
        hours = places.get(_piece(logged.inputs), ())
        near = [hour for hour in hours if logged.at - reach <= hour <= logged.at]
        if near:
            found[logged.id] = near[-1]
    return found


def _piece(values: object) -> bytes:
    """Return values as the bytes by which they are looked up; nothing for what is no list of numbers."""
    try:
        return (np.asarray(values, np.float32) + _ZERO).tobytes()
    except (TypeError, ValueError):
        return b""


def _places(
    engine: sa.Engine,
    family: Family,
    data: Series,
    series: str,
    since: datetime,
    until: datetime,
) -> dict[bytes, list[datetime]]:
    """Return the hours, in order, at which each piece of the series ended, its gaps filled as a snapshot's are."""
    # A day more, as a gap that began before can only be filled with the value before it.
    start = since - data.history * HOUR - timedelta(days=1)
    rows = observations.read(engine, series, start, until + timedelta(days=1))
    try:
        table, _ = family.prepare(rows)
    except InvalidInput:  # there is no value at all in that time
        return {}
    values = table[data.column].to_numpy(np.float32) + _ZERO
    times = [time.to_pydatetime() for time in table["time"]]
    found: dict[bytes, list[datetime]] = defaultdict(list)
    for end in range(data.history, len(values) + 1):
        found[values[end - data.history : end].tobytes()].append(times[end - 1])
    return found


def _observe_batch(
    engine: sa.Engine, data: Series, series: str, report: JoinReport, batch: Sequence[Logged]
) -> JoinReport:
    if not batch:
        return report
    hours = _hours(engine, data, series, batch)
    with db.writing(engine) as connection:
        there = predictions.hold(connection, [each.id for each in batch])
        known = truths.known(connection, list(there))
        # What is known already stays: an hour never changes, and feedback is about this very answer.
        said = {
            each.id: _followed(data, each, hours, known[each.id])
            for each in batch
            if each.id in there
        }
        counts = truths.tell(connection, [truth for each in said.values() for truth in each])
        met = {each.id: each for each in batch if said.get(each.id)}
        complete = _mark(connection, data, met, dict.fromkeys(met, data.horizon))
    return _more(report, completed=complete, **counts._asdict())


def _hours(
    engine: sa.Engine, data: Series, series: str, batch: Sequence[Logged]
) -> dict[datetime, observations.Measured]:
    anchors = [each.anchor for each in batch if each.anchor is not None]
    since, until = min(anchors) + HOUR, max(anchors) + data.horizon * HOUR
    return observations.measured(engine, series, data.column, since, until)


def _followed(
    data: Series,
    prediction: Logged,
    hours: Mapping[datetime, observations.Measured],
    known: Iterable[int],
) -> list[Truth]:
    """Return the stored hours that a prediction was about and that it does not know yet."""
    if prediction.anchor is None:
        return []
    wanted = {p: prediction.anchor + (p + 1) * HOUR for p in range(data.horizon)}
    return [
        Truth(prediction.id, position, found.value, found.source, found.stored_at)
        for position, hour in wanted.items()
        if position not in known and (found := hours.get(hour))
    ]
