"""How a family stands: what its policy decides by, gathered from tables, registry and artifacts; nothing is decided."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from msgspec.structs import replace

from raysys import log
from raysys.artifacts import Artifacts
from raysys.errors import ModelRefused, NotFound
from raysys.families.base import Family, Numbers, Predict, Series
from raysys.pipelines import drift as drifts
from raysys.pipelines import quality
from raysys.pipelines.policy import Rival, State
from raysys.pipelines.promote import CHAMPION
from raysys.records import (
    SCORES_TAG,
    SEED_TAG,
    SNAPSHOT_TAG,
    Drift,
    Level,
    ModelVersion,
    Promotion,
    QualityReport,
    QualityWindow,
    Snapshot,
)
from raysys.registry import Registry
from raysys.settings import Policy, Settings
from raysys.sources import series_name
from raysys.store import examples, observations, promotions, snapshots

DAY = timedelta(days=1)
TRUTH_DAYS = 7  # that truth may lag behind the windows that are looked at
MOST = 100  # windows that a decision may look at: what a policy allows
SETTLED = 0.8  # of the placed values of a window of hours: those known first are the easiest


class Where(NamedTuple):
    """What the rows of a family's quality are read from."""

    engine: sa.Engine
    artifacts: Artifacts
    registry: Registry
    family: Family
    settings: Settings

    @property
    def policy(self) -> Policy:
        """The policy of the family."""
        return self.settings.policy_of(self.family.name)

    @property
    def step(self) -> timedelta:
        """The length of a window."""
        return timedelta(hours=self.policy.window_hours)

    @property
    def series(self) -> str | None:
        """The series of a family of hours."""
        return series_name(self.settings) if isinstance(self.family.data, Series) else None


def report(where: Where, *, now: datetime) -> QualityReport:
    """Return how every version did in the windows that may be looked at, and keep it for those who ask later."""
    engine, artifacts, seed = where.engine, where.artifacts, where.settings.seed
    found = quality.report(
        engine,
        where.family,
        where.registry.versions(where.family.name),
        days=math.ceil(where.policy.windows * where.step / DAY) + TRUTH_DAYS,
        step=where.step,
        now=now,
        baseline_of=lambda version: quality.baseline_of(
            engine, artifacts, where.family, version, seed
        ),
        largest_of=lambda version: _largest_errors(where, version),
    )
    quality.publish(artifacts, found)
    return found


def score(where: Where, found: QualityReport, *, now: datetime) -> State | None:
    """Return how the champion does on live traffic, and beside its predecessor; None where nothing serves."""
    champion = where.registry.champion(where.family.name)
    if champion is None:
        return None
    mine = [each for each in found.versions if each.version == champion.version]
    promotion = _promotion(where, champion.version)
    rows = snapshot_of(where, champion)
    return State(
        family=where.family.name,
        version=champion.version,
        metric=where.family.metric,
        unit=where.family.unit,
        test_error=quality.test_error(where.family, champion),
        test_baseline_error=_baseline_test_error(where.family, champion),
        windows=[w for each in mine for w in each.windows if _is_settled(where, w)][-MOST:],
        rivals=_rivals(where, champion.version, promotion, now)[-MOST:],
        promotion=promotion and replace(promotion, report={}),  # it may be long
        age_days=None if rows is None or rows.created_at is None else (now - rows.created_at) / DAY,
        new_share=0.0 if rows is None else _new_rows(where, rows, now) / max(rows.rows, 1),
    )


def snapshot_of(where: Where, version: ModelVersion) -> Snapshot | None:
    """Return the snapshot that a version was trained on, or None when there is none any more."""
    try:
        name = version.tags.get(SNAPSHOT_TAG, "")
        return snapshots.get(where.engine, where.family.name, name)
    except NotFound:
        return None


def drift(where: Where, *, now: datetime) -> list[Drift]:
    """Return the drift of what comes in and goes out against the champion's snapshot; none without one."""
    champion = where.registry.champion(where.family.name)
    rows = None if champion is None else snapshot_of(where, champion)
    model = None if champion is None else _model(where, champion)
    if champion is None or rows is None or model is None:
        return []
    try:
        return _measured(where, champion, rows, model, now)
    except NotFound as error:
        log.get("quality").warning("no drift", family=where.family.name, reason=error.message)
        return []


def _measured(
    where: Where, champion: ModelVersion, rows: Snapshot, model: Predict, now: datetime
) -> list[Drift]:
    return drifts.measure(
        where.engine,
        where.artifacts,
        where.family,
        rows,
        model,
        version=champion.version,
        series=where.series,
        seed=int(champion.tags.get(SEED_TAG, where.settings.seed)),
        policy=where.policy,
        now=now,
    )


def _largest_errors(where: Where, version: ModelVersion) -> Numbers | None:
    """Return the champion's largest errors; None where single values say little, as among rows of a table."""
    if where.series is None or CHAMPION not in version.aliases:
        return None
    rows = snapshot_of(where, version)
    if rows is None:
        return None
    seed = int(version.tags.get(SEED_TAG, where.settings.seed))
    try:
        onnx = where.registry.fetch(version)
        return quality.largest_errors(where.artifacts, rows, where.family, onnx, seed)
    except (ModelRefused, NotFound):
        return None


def _promotion(where: Where, version: str) -> Promotion | None:
    """Return the move that made `version` the champion; None when the alias was moved past raysys."""
    moves = promotions.history(where.engine, where.family.name)
    newest = next((move for move in moves if move.alias == CHAMPION), None)
    return newest if newest is not None and newest.to_version == version else None


def _baseline_test_error(family: Family, version: ModelVersion) -> float | None:
    try:
        scores = json.loads(version.tags[SCORES_TAG])
        return float(scores[family.gate.baseline][family.metric])
    except (KeyError, ValueError):
        return None


def _new_rows(where: Where, rows: Snapshot, now: datetime) -> int:
    if where.series is None:
        return examples.count(where.engine, where.family.name, rows.created_at)
    if rows.time_to is None:
        return 0
    since = rows.time_to + timedelta(hours=1)
    return observations.count(where.engine, where.series, since, now)


# -- windows ---------------------------------------------------------------------------------------


def _is_settled(where: Where, window: QualityWindow) -> bool:
    if where.series is None:
        return window.values > 0  # feedback comes for some requests only, or for all
    reachable = window.wanted * window.placed / max(window.predictions, 1)
    return window.values > 0 and window.values >= SETTLED * reachable


def _rivals(where: Where, version: str, promotion: Promotion | None, now: datetime) -> list[Rival]:
    """Return the errors of the champion and of the one before it, window by window since the promotion."""
    if promotion is None or now - promotion.at > where.policy.rollback_days * DAY:
        return []
    predecessor = _predecessor(where, promotion)
    if predecessor is None:
        return []
    found = quality.windows(
        where.engine,
        where.family,
        version=version,
        since=promotion.at.replace(hour=0, minute=0, second=0, microsecond=0),
        until=now,
        step=where.step,
        baseline=predecessor,
    )
    return list(_compared(window for window in found if _is_settled(where, window)))


def _compared(windows: Iterable[QualityWindow]) -> Iterator[Rival]:
    for window in windows:
        if window.error is not None and window.baseline_error is not None:
            yield Rival(
                since=window.since,
                values=window.values,
                error=window.error,
                predecessor_error=window.baseline_error,
            )


def _predecessor(where: Where, promotion: Promotion) -> Predict | None:
    if promotion.from_version is None or promotion.action == "rollback":
        return None
    try:
        before = where.registry.version(where.family.name, promotion.from_version)
    except NotFound:
        return None
    return _model(where, before)


def _model(where: Where, version: ModelVersion) -> Predict | None:
    """Return a version as a function; None for one that this family can load no more."""
    try:
        return quality.predictor(where.family, where.registry.fetch(version))
    except (ModelRefused, NotFound):
        return None


# -- numbers for people ----------------------------------------------------------------------------


def levels(state: State, found: QualityReport, policy: Policy) -> list[Level]:
    """Return what is exported of the champion: the errors of its newest windows together, and its coverage."""
    newest = state.windows[-policy.windows :]
    overall = [v.overall for v in found.versions if v.version == state.version and v.overall]
    values = {
        "test_error": state.test_error,
        "live_error": _mean((each.error, each.values) for each in newest),
        "live_baseline_error": _mean((each.baseline_error, each.values) for each in newest),
        "truth_coverage": overall[0].coverage if overall else None,
    }
    labels = {"family": state.family, "version": state.version}
    return [
        Level(name=name, value=value, labels=labels)
        for name, value in values.items()
        if value is not None
    ]


def _mean(errors: Iterable[tuple[float | None, int]]) -> float | None:
    """Return the mean of errors, each of which weighs as much as the values it is over."""
    known = [(error, values) for error, values in errors if error is not None]
    total = sum(values for _, values in known)
    return sum(error * values for error, values in known) / total if total else None


def drift_levels(family: str, drifted: Sequence[Drift]) -> list[Level]:
    """Return what is exported of how far each feature drifted."""
    mine = {"family": family}
    return [level for each in drifted for level in _of_feature(each, mine)]


def _of_feature(found: Drift, family: dict[str, str]) -> Iterator[Level]:
    if found.score is None:
        return
    if found.kind == "output":
        yield Level(name="prediction_drift_score", value=found.score, labels=family)
        return
    labels = {**family, "feature": found.feature}
    yield Level(name="drift_score", value=found.score, labels=labels)
    if found.psi is not None:
        yield Level(name="drift_psi", value=found.psi, labels=labels)
