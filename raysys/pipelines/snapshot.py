"""Snapshots: the table that a model is made of, immutable and named by the hash of its content."""

from __future__ import annotations

import hashlib
import io
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import sqlalchemy as sa

from raysys.artifacts import Artifacts
from raysys.errors import Conflict, InvalidInput
from raysys.families.base import Family, Series
from raysys.records import Snapshot
from raysys.store import examples, observations, snapshots

if TYPE_CHECKING:
    import pandas as pd


def take(
    engine: sa.Engine,
    artifacts: Artifacts,
    family: Family,
    series: str | None,
    *,
    workflow_id: str | None,
    now: datetime,
) -> Snapshot:
    """Turn the stored rows of `family` (of `series`, for hours) into a snapshot; register and return it.

    The same rows give the same snapshot, however often it is taken. Raises InvalidInput without rows.
    """
    table, gaps = family.prepare(_rows(engine, family, series))
    digest = content_hash(table)
    uri = artifacts.put(f"snapshots/{family.name}/{digest}.parquet", _parquet(table))
    times = table.get("time")
    snapshot = Snapshot(
        hash=digest,
        family=family.name,
        uri=uri,
        rows=len(table),
        time_from=None if times is None else times.min().to_pydatetime(),
        time_to=None if times is None else times.max().to_pydatetime(),
        gaps=gaps,
        created_at=now,
    )
    return snapshots.add(engine, snapshot, workflow_id)


def _rows(engine: sa.Engine, family: Family, series: str | None) -> pd.DataFrame:
    if isinstance(family.data, Series):
        if series is None:
            raise TypeError(f"{family.name} is made of hours: name their series")
        rows, bring = observations.read(engine, series), f"raysys crawl {family.name}"
    else:
        rows, bring = examples.read(engine, family.name), f"raysys data import {family.name} FILE"
    if rows.empty:
        where = f" in the series {series}" if series else ""
        raise InvalidInput(f"There are no rows of {family.name}{where}. Run `{bring}` first.")
    return rows


def _parquet(table: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    table.to_parquet(out, index=False)
    return out.getvalue()


def load(artifacts: Artifacts, snapshot: Snapshot) -> pd.DataFrame:
    """Return the table of `snapshot`; raises Conflict when its file is not what was taken."""
    import pandas as pd

    table = pd.read_parquet(io.BytesIO(artifacts.get(snapshot.uri)))
    if content_hash(table) != snapshot.hash:
        raise Conflict(
            f"The file of snapshot {snapshot.hash} of {snapshot.family} was changed: {snapshot.uri}. "
            "Train again to take a new snapshot.",
            family=snapshot.family,
            hash=snapshot.hash,
        )
    return table


def content_hash(frame: pd.DataFrame) -> str:
    """Return the SHA-256 of names, types and values of the columns, in order; the index is no part.

    Numbers count as little-endian bytes, times as nanoseconds since 1970 (UTC), texts as UTF-8.
    """
    digest = hashlib.sha256(f"{len(frame)}".encode())
    for name in frame.columns:
        kind, content = _bytes(frame[name])
        digest.update(f"\n{name}\t{kind}\t{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _bytes(column: pd.Series) -> tuple[str, bytes]:
    """Return the name of a column's type and its values as bytes, the same on every machine."""
    import pandas as pd

    if isinstance(column.dtype, pd.DatetimeTZDtype):
        times = column.dt.tz_convert("UTC").astype("datetime64[ns, UTC]")
        return "time", times.astype("int64").to_numpy().astype("<i8").tobytes()
    if pd.api.types.is_float_dtype(column.dtype):
        numbers = column.to_numpy(np.float64) + 0.0  # so that -0.0, which JSON may lose, is 0.0
        numbers[np.isnan(numbers)] = np.nan  # one NaN of the many
        return str(column.dtype), numbers.astype("<f8").tobytes()
    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_integer_dtype(column.dtype):
        return str(column.dtype), column.to_numpy(np.int64).astype("<i8").tobytes()
    texts = [str(text).encode() for text in column]
    return "text", b"".join(f"{len(text)}:".encode() + text for text in texts)
