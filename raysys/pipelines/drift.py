"""How far live values are from the rows that a version was trained on, by feature; what follows is not decided here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from raysys.artifacts import Artifacts
from raysys.families.base import Array, Family, Predict, Series
from raysys.pipelines import snapshot as snapshots
from raysys.pipelines.climate import DAY_HOURS, LEAST_DAYS, LEAST_SHARE, Climate, yardstick
from raysys.pipelines.histogram import (
    Daily,
    Histogram,
    ks,
    ks_limit,
    psi,
    psi_limit,
    wasserstein,
)
from raysys.records import Drift, Snapshot
from raysys.settings import Policy
from raysys.store import observations, predictions

if TYPE_CHECKING:
    import pandas as pd

OUTPUT = "prediction"
DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BATCH = 500
LEAST_ROWS = 50  # distinct ones: a body that is sent a thousand times is one
CHANCE = 0.001  # that one healthy feature of independent rows exceeds a threshold once
MOST_COLUMNS = 50  # beyond, as for pictures, a row is told by its mean and its spread
REFERENCE_DAYS = 4 * 366  # the newest of a longer series
COLUMN_SHARE = 0.8  # of the hours, that a column must have to be compared
TAIL_DAYS = 2

Numbers = NDArray[Any]
Kind = Literal["input", "relation", "context", "output"]


class Live(NamedTuple):
    """What live values are taken of: a version of a family, from `now` back."""

    engine: sa.Engine
    family: Family
    version: str
    now: datetime
    policy: Policy

    @property
    def days(self) -> int:
        """How many days all checks together look back."""
        return self.policy.drift_days + self.policy.drift_checks - 1

    def logged(self) -> Iterator[tuple[Numbers, list[predictions.Logged]]]:
        """Yield the predictions of the sample, a batch at a time, after their ages in days."""
        batches = predictions.batches(
            self.engine,
            self.family.name,
            states=predictions.SAMPLED,
            size=BATCH,
            since=self.now - self.days * DAY,
            until=self.now,
        )
        for batch in batches:
            yield np.array([(self.now - each.at) // DAY for each in batch], np.intp), batch


def measure(
    engine: sa.Engine,
    artifacts: Artifacts,
    family: Family,
    snapshot: Snapshot,
    model: Predict,
    *,
    version: str,
    series: str | None,
    seed: int,
    policy: Policy,
    now: datetime,
) -> list[Drift]:
    """Compare what came in lately, and what `version` answered, with the rows of its snapshot.

    Of a family of hours these are the hours stored in `series`; of a family of rows, the logged requests. `model`
    gives the numbers of the version's answers to encoded rows; it raises TypeError where there are none.
    """
    live = Live(engine, family, version, now, policy)
    table = snapshots.load(artifacts, snapshot)
    if isinstance(family.data, Series):
        return _of_hours(live, family.data, table, series or "")
    return _of_rows(live, table, model, seed)


# -- independent rows ------------------------------------------------------------------------------


def _of_rows(live: Live, table: pd.DataFrame, model: Predict, seed: int) -> list[Drift]:
    parts = live.family.split(table, seed)
    x = np.concatenate([part[0] for part in (parts.train, parts.validation, parts.test)])
    reference: dict[str, Numbers] = _features(live.family, x)
    with suppress(TypeError):  # the family has no numbers of its answers
        reference[OUTPUT] = model(x)
    known = {
        name: Histogram.over(values)
        for name, values in reference.items()
        if np.isfinite(values).any()
    }
    daily = {name: Daily(bins, live.days) for name, bins in known.items()}
    _count_rows(live, daily)
    chance = CHANCE / len(known)
    return [_rows_drift(live, name, known[name], daily[name], chance) for name in known]


def _features(family: Family, x: Array) -> dict[str, Numbers]:
    rows = x.reshape(len(x), -1)
    if rows.shape[1] > MOST_COLUMNS:
        return {"mean": rows.mean(axis=1), "spread": rows.std(axis=1)}
    names = family.columns()
    if len(names) != rows.shape[1]:
        names = tuple(f"x{place}" for place in range(rows.shape[1]))
    return dict(zip(names, rows.T, strict=True))


def _count_rows(live: Live, daily: Mapping[str, Daily]) -> None:
    """Count each distinct request of a day once."""
    seen: set[tuple[int, int]] = set()
    for ages, batch in live.logged():
        new = []
        for place, (age, logged) in enumerate(zip(ages.tolist(), batch, strict=True)):
            key = (age, hash(msgspec.json.encode(logged.inputs)))
            if key not in seen:
                seen.add(key)
                new.append(place)
        _count_inputs(live.family, daily, ages[new], [batch[place].inputs for place in new])
        mine = [place for place in new if batch[place].version == live.version]
        if mine and OUTPUT in daily:
            answers = live.family.numbers([batch[place].outputs for place in mine])
            daily[OUTPUT].add(np.repeat(ages[mine], answers.shape[1]), answers.ravel())


def _count_inputs(
    family: Family, daily: Mapping[str, Daily], ages: Numbers, inputs: list[Any]
) -> None:
    rows, kept = [], []
    for place, each in enumerate(inputs):
        try:
            rows.append(msgspec.convert(each, family.request))
        except msgspec.ValidationError:
            continue  # logged by a release whose requests looked otherwise
        kept.append(place)
    if rows:
        for name, values in _features(family, family.encode(rows)).items():
            if name in daily:
                daily[name].add(ages[kept], values)


def _rows_drift(live: Live, name: str, known: Histogram, daily: Daily, chance: float) -> Drift:
    def score(window: Histogram) -> float:
        index = psi(known, window) / psi_limit(known, window, chance)
        return max(index, ks(known, window) / ks_limit(known, window, chance))

    return _judged(live, name, "output" if name == OUTPUT else "input", daily, known, score)


# -- hours of a series -----------------------------------------------------------------------------


def _of_hours(live: Live, data: Series, table: pd.DataFrame, series: str) -> list[Drift]:
    frame, last = _frame(live, data, table, series)
    hours = frame["hour"].to_numpy()
    known = hours <= last
    others = [
        name
        for name in frame.columns
        if name not in ("hour", data.column)
        and frame[name][known].notna().mean() >= COLUMN_SHARE
        and frame[name][known].nunique() > 1
    ]
    column = frame[data.column].to_numpy(np.float64)
    context = frame[others].to_numpy(np.float64)
    found = [_hours_drift(live, data.column, "input", hours, column, None, last)]
    if others:
        name = f"{data.column}_given_others"
        found.append(_hours_drift(live, name, "relation", hours, column, context, last))
    found += [
        _hours_drift(live, name, "context", hours, context[:, place], None, last)
        for place, name in enumerate(others)
    ]
    return [*found, _answers_drift(live, hours[known], column[known])]


def _frame(live: Live, data: Series, table: pd.DataFrame, series: str) -> tuple[pd.DataFrame, int]:
    """Return `hour` and columns: of the snapshot up to its last hour, which is returned too, then as stored.

    The other columns are not in the snapshot: they are as stored throughout.
    """
    import pandas as pd

    end = table["time"].max()
    since = max(table["time"].min(), end - REFERENCE_DAYS * DAY)
    stored = observations.read(live.engine, series, since.to_pydatetime(), live.now)
    frame = pd.merge(
        stored, table[["time", data.column]], on="time", how="outer", suffixes=("", "_known")
    )
    frame = frame[frame["time"] >= since].sort_values("time", ignore_index=True)
    trained = frame["time"] <= end
    frame.loc[trained, data.column] = frame.loc[trained, f"{data.column}_known"]
    frame["hour"] = ((frame["time"] - EPOCH) // pd.Timedelta(hours=1)).astype("int64")
    return frame.drop(columns=["time", f"{data.column}_known"]), _hour(end.to_pydatetime())


def _hour(at: datetime) -> int:
    return (at - EPOCH) // timedelta(hours=1)


def _hours_drift(
    live: Live,
    name: str,
    kind: Kind,
    hours: Numbers,
    values: Numbers,
    others: Numbers | None,
    last: int,
) -> Drift:
    """Compare the newest days up to the newest value with the hours up to `last`."""
    known = hours <= last
    climate = Climate.of(hours[known], values[known], None if others is None else others[known])
    anomalies = climate.anomalies(hours, values, others)
    stick = yardstick(hours[known], anomalies[known], live.policy.drift_days, TAIL_DAYS)
    there = np.isfinite(anomalies)
    if stick is None or not there.any():
        return _unknown(name, kind)
    daily = Daily(stick.whole, live.days)
    daily.add((hours[there][-1] - hours) // DAY_HOURS, anomalies)
    return _judged(live, name, kind, daily, stick.whole, stick.score)


def _answers_drift(live: Live, hours: Numbers, values: Numbers) -> Drift:
    """Compare the hours that were predicted lately with the hours of the snapshot."""
    climate = Climate.of(hours, values)
    anomalies = climate.anomalies(hours, values)
    stick = yardstick(hours, anomalies, live.policy.drift_days, TAIL_DAYS)
    if stick is None:
        return _unknown(OUTPUT, "output")
    # Of many forecasts of one hour the newest counts, as an hour is one value however often it is asked for.
    newest: dict[int, tuple[int, float]] = {}
    for ages, batch in live.logged():
        for age, logged in zip(ages.tolist(), batch, strict=True):
            if logged.version == live.version:
                start = _hour(logged.anchor or logged.at) + 1
                answer = live.family.numbers([logged.outputs])[0].tolist()
                newest |= {start + lead: (age, value) for lead, value in enumerate(answer)}
    daily = Daily(stick.whole, live.days)
    if newest:
        asked = np.array(list(newest), np.int64)
        ages = np.array([age for age, _ in newest.values()], np.intp)
        daily.add(ages, climate.anomalies(asked, np.array([v for _, v in newest.values()])))
    return _judged(live, OUTPUT, "output", daily, stick.whole, stick.score)


def _unknown(name: str, kind: Kind) -> Drift:
    reason = f"the snapshot has not {LEAST_DAYS} days of it"
    return Drift(feature=name, kind=kind, live=0, reason=reason)


# -- both ------------------------------------------------------------------------------------------


def _judged(
    live: Live,
    name: str,
    kind: Kind,
    daily: Daily,
    known: Histogram,
    score: Callable[[Histogram], float],
) -> Drift:
    days = live.policy.drift_days
    series = isinstance(live.family.data, Series)
    least = int(days * DAY_HOURS * LEAST_SHARE) if series else LEAST_ROWS
    scores: list[float | None] = []
    for check in range(live.policy.drift_checks):
        window = daily.window(check, days)
        scores.append(score(window) if window.total >= least else None)
    window = daily.window(0, days)
    if scores[0] is None:
        reason = f"{window.total} values of {days} days are too few ({least} are needed)"
        return Drift(feature=name, kind=kind, live=window.total, reason=reason)
    return Drift(
        feature=name,
        kind=kind,
        live=window.total,
        score=scores[0],
        lasted=next((n for n, s in enumerate(scores) if s is None or s <= 1), len(scores)),
        psi=psi(known, window),
        ks=ks(known, window),
        distance=wasserstein(known, window),
    )
