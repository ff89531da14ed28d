"""A lineage names what an answer was made of, and the stored rows give its snapshot again, on both databases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from raysys import db
from raysys.artifacts import Artifacts
from raysys.errors import NotFound
from raysys.pipelines import lineage, snapshot
from raysys.records import Lineage, ModelVersion, Snapshot
from raysys.settings import Settings
from raysys.sources.sample import insurance_rows
from raysys.store import examples
from raysys.store.tables import observations
from tests.contract import ground
from tests.contract.ground import ATMOS, INSURANCE, crawl, hour, log, price


class Versions:
    """The part of a registry that a lineage needs."""

    def __init__(self, *known: ModelVersion) -> None:
        self._known = {(each.family, each.version): each for each in known}

    def version(self, family: str, version: str) -> ModelVersion:
        if (family, version) not in self._known:
            raise NotFound(f"There is no {family} {version}.")
        return self._known[family, version]


def version(family: str, **tags: str) -> ModelVersion:
    given: Any = {"run_id": "run-1", "sha256": "", "model_uri": "", "aliases": ["champion"]}
    named = {f"raysys.{name}": value for name, value in tags.items()}
    return ModelVersion(family=family, version="1", tags=named, **given)


def made_of(taken: Snapshot) -> ModelVersion:
    return version(taken.family, snapshot=taken.hash, workflow_id="training")


def take(engine: sa.Engine, settings: Settings, family: Any, number: int) -> Snapshot:
    series = "sample-108" if family is ATMOS else None
    return snapshot.take(
        engine,
        Artifacts(settings.artifact_root),
        family,
        series,
        workflow_id="training",
        now=hour(number),
    )


def chain(engine: sa.Engine, settings: Settings, name: str, *known: ModelVersion) -> Lineage:
    return lineage.chain(engine, Versions(*known), settings, name)  # type: ignore[arg-type]


def test_a_prediction_leads_back_to_the_crawls_of_its_hours(
    engine: sa.Engine, settings: Settings
) -> None:
    crawl(engine, 0, 100)
    crawl(engine, 100, 150, workflow_id="second")
    taken = take(engine, settings, ATMOS, 150)
    crawl(engine, 150, 200, workflow_id="later")
    log(engine, "p", 160)
    for name in ("p", "request-p", "atmos/1"):
        found = chain(engine, settings, name, made_of(taken))
        assert (found.snapshot, found.recomputed, found.same) == (taken, taken.hash, True)
        assert (found.workflow_id, found.series, found.remarks) == ("training", "sample-108", [])
        assert found.run_url == f"{settings.tracking_uri}/#/runs/run-1"
        assert [(o.workflow_id, o.rows, o.time_from, o.time_to) for o in found.origins] == [
            ("w", 100, hour(0), hour(99)),
            ("second", 50, hour(100), hour(149)),
        ]
    assert (found.prediction_id, found.aliases) == (None, ["champion"])
    told = chain(engine, settings, "p", made_of(taken))
    assert (told.prediction_id, told.request_id) == ("p", "request-p")


def test_a_station_that_is_set_no_more_is_found_by_its_hash(
    engine: sa.Engine, settings: Settings
) -> None:
    crawl(engine, 0, 100)
    taken = take(engine, settings, ATMOS, 100)
    moved = settings.model_copy(update={"atmos_station": "112"})
    found = chain(engine, moved, "atmos/1", made_of(taken))
    assert (found.series, found.same) == ("sample-108", True)


def test_a_value_that_was_filled_later_does_not_count(
    engine: sa.Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    holed = ground.DEGREES.copy()
    holed[50] = np.nan
    whole = ground.DEGREES
    monkeypatch.setattr(ground, "DEGREES", holed)
    crawl(engine, 0, 100)
    taken = take(engine, settings, ATMOS, 100)
    monkeypatch.setattr(ground, "DEGREES", whole)
    crawl(engine, 40, 60, now=hour(101))
    # The row that was filled is left out, and the hole that it had is interpolated as it was then.
    assert chain(engine, settings, "atmos/1", made_of(taken)).same


def test_an_hour_that_was_changed_after_all_is_told(engine: sa.Engine, settings: Settings) -> None:
    crawl(engine, 0, 100)
    taken = take(engine, settings, ATMOS, 100)
    with db.writing(engine) as connection:
        change = sa.update(observations).where(observations.c.time == hour(50))
        connection.execute(change.values(temperature=40.0, stored_at=hour(101)))
    found = chain(engine, settings, "atmos/1", made_of(taken))
    assert not found.same
    assert "1 hours of its time were stored" in found.remarks[0]


def test_rows_that_give_another_snapshot_are_told(engine: sa.Engine, settings: Settings) -> None:
    crawl(engine, 0, 100)
    taken = take(engine, settings, ATMOS, 100)
    crawl(engine, 100, 110, now=hour(99))
    found = chain(engine, settings, "atmos/1", made_of(taken))
    assert not found.same
    assert found.recomputed not in (None, taken.hash)
    assert found.remarks == ["the rows that are stored today do not give this snapshot"]


def test_rows_of_a_table_lead_back_to_their_file_even_when_better_ones_came(
    engine: sa.Engine, settings: Settings
) -> None:
    given: Any = {"family": "insurance", "workflow_id": None}
    rows = insurance_rows(40, 1)
    examples.add(engine, rows=rows, source=examples.SIMULATED, now=hour(0), **given)
    simulated = take(engine, settings, INSURANCE, 1)
    examples.add(engine, rows=rows[:20], source="people.csv", now=hour(2), **given)
    observed = take(engine, settings, INSURANCE, 3)
    for taken, origin in ((simulated, (examples.SIMULATED, 40)), (observed, ("people.csv", 20))):
        found = chain(engine, settings, "insurance/1", made_of(taken))
        assert (found.same, found.snapshot) == (True, taken)
        assert [(o.source, o.rows) for o in found.origins] == [origin]


@pytest.mark.parametrize(
    ("known", "remark"),
    [
        ([], "the registry has no version 1 any more"),
        ([version("insurance")], "not registered by a training"),
        ([version("insurance", snapshot="gone")], "There is no snapshot gone"),
    ],
)
def test_a_chain_that_breaks_says_where(
    engine: sa.Engine, settings: Settings, known: list[ModelVersion], remark: str
) -> None:
    price(engine, "a", request_id="r", row=1)
    price(engine, "b", request_id="r", row=0)
    found = chain(engine, settings, "r", *known)
    assert (found.prediction_id, found.version, found.snapshot) == ("b", "1", None)
    assert found.remarks[0] == "the request had 2 predictions, this is the first"
    assert remark in found.remarks[1]


@pytest.mark.parametrize("name", ["nothing", "insurance/7", "nobody/1"])
def test_what_does_not_exist_is_not_found(engine: sa.Engine, settings: Settings, name: str) -> None:
    with pytest.raises(NotFound):
        chain(engine, settings, name)
