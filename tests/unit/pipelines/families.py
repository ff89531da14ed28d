"""Two tiny families: what pipelines need of a family, and no model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec

from raysys.families.base import Family, Series, Table
from raysys.records import Gap

if TYPE_CHECKING:
    import pandas as pd


class Plant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request with each kind of field."""

    height: Annotated[float, msgspec.Meta(ge=0, lt=100)]
    leaves: Annotated[int, msgspec.Meta(ge=0, le=50)]
    kind: Literal["fern", "moss", 0, 1]
    potted: bool
    note: str | None = None


class _Plants:
    name = "plants"
    data = Table(label="weight")
    request = Plant

    def prepare(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[Gap]]:
        columns = [*Plant.__struct_fields__, "weight"]
        return rows[columns].sort_values(columns).reset_index(drop=True), []


class _Air:
    name = "air"
    data = Series(column="temperature", history=3, horizon=1)

    def prepare(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[Gap]]:
        return rows[["time", "temperature"]].dropna().reset_index(drop=True), []


PLANTS = cast(Family, cast(Any, _Plants()))
AIR = cast(Family, cast(Any, _Air()))
