"""Where an answer comes from: prediction, version, MLflow run, training, snapshot, rows, the runs that brought them."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from msgspec.structs import replace

from raysys import families
from raysys.errors import InvalidInput, NotFound
from raysys.families.base import Family, Series
from raysys.pipelines.snapshot import content_hash
from raysys.records import SNAPSHOT_TAG, WORKFLOW_TAG, Lineage, ModelVersion, Snapshot
from raysys.registry import Registry
from raysys.settings import Settings
from raysys.sources import series_name
from raysys.store import examples, observations, predictions, snapshots


def chain(engine: sa.Engine, registry: Registry, settings: Settings, name: str) -> Lineage:
    """Return the lineage of `name`: a version as FAMILY/VERSION, a prediction's id, or the id of its request.

    Raises NotFound for what is none of these.
    """
    if "/" in name:
        family, _, version = name.partition("/")
        known = registry.version(families.get(family).name, version)
        return _of_version(engine, settings, Lineage(family=known.family, version=version), known)
    found = predictions.find(engine, name)
    family, logged = found[0]
    start = Lineage(
        family=family,
        version=logged.version,
        prediction_id=logged.id,
        request_id=logged.request_id,
        predicted_at=logged.at,
        remarks=[f"the request had {len(found)} predictions, this is the first"]
        if len(found) > 1
        else [],
    )
    try:
        known = registry.version(family, logged.version)
    except NotFound:
        return _remark(start, f"the registry has no version {logged.version} any more")
    return _of_version(engine, settings, start, known)


def _remark(lineage: Lineage, remark: str) -> Lineage:
    return replace(lineage, remarks=[*lineage.remarks, remark])


def _of_version(
    engine: sa.Engine, settings: Settings, start: Lineage, version: ModelVersion
) -> Lineage:
    lineage = replace(
        start,
        aliases=version.aliases,
        run_id=version.run_id or None,
        run_url=f"{settings.tracking_uri}/#/runs/{version.run_id}" if version.run_id else None,
        workflow_id=version.tags.get(WORKFLOW_TAG),
    )
    try:
        taken = snapshots.get(engine, version.family, version.tags[SNAPSHOT_TAG])
    except KeyError:
        return _remark(lineage, "the version was not registered by a training of raysys")
    except NotFound as error:
        return _remark(lineage, error.message)
    lineage = replace(lineage, snapshot=taken)
    family = families.get(version.family)
    if taken.created_at is None:
        return _remark(lineage, "it is not known when the snapshot was taken")
    if isinstance(family.data, Series):
        return _of_hours(engine, settings, lineage, family, taken, taken.created_at)
    return _of_rows(engine, lineage, family, taken.created_at)


def _of_rows(engine: sa.Engine, lineage: Lineage, family: Family, at: datetime) -> Lineage:
    origins = examples.origins(engine, family.name, at)
    if not origins:
        return _remark(lineage, "none of its rows is stored any more")
    table, _ = family.prepare(examples.read(engine, family.name, stored_by=at))
    return _told(replace(lineage, origins=origins, recomputed=content_hash(table)))


def _of_hours(
    engine: sa.Engine,
    settings: Settings,
    lineage: Lineage,
    family: Family,
    taken: Snapshot,
    at: datetime,
) -> Lineage:
    """Find the series that gives the snapshot: that of the settings first, as a snapshot does not name its own."""
    current = series_name(settings)
    series, recomputed = current, _recomputed(engine, family, current, at)
    for name in observations.names(engine) if recomputed != taken.hash else ():
        if _recomputed(engine, family, name, at) == taken.hash:
            series, recomputed = name, taken.hash
    lineage = replace(lineage, series=series, recomputed=recomputed)
    if taken.time_from is not None and taken.time_to is not None:
        origins = observations.origins(engine, series, taken.time_from, taken.time_to, at)
        lineage = replace(lineage, origins=origins)
    later = observations.stored_since(engine, series, taken.time_to or at, at)
    if later and not lineage.same:
        told = (
            f"{later} hours of its time were stored, or a value of them filled, after it was taken"
        )
        lineage = _remark(lineage, told)
    return _told(lineage)


def _recomputed(engine: sa.Engine, family: Family, series: str, at: datetime) -> str | None:
    try:
        table, _ = family.prepare(observations.read(engine, series, stored_by=at))
    except InvalidInput:  # none of its hours was there then
        return None
    return content_hash(table)


def _told(lineage: Lineage) -> Lineage:
    if lineage.same:
        return lineage
    return _remark(lineage, "the rows that are stored today do not give this snapshot")
