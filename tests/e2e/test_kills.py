"""Kill anything, lose nothing: a part of a running raysys is killed at a random moment of each step of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import pytest
import sqlalchemy as sa
from _pytest.mark import ParameterSet

from raysys import db, families
from raysys.durable import Client
from raysys.pipelines import ingest
from raysys.records import WORKFLOW_TAG, Event, Run, StepRun
from raysys.registry import Registry
from raysys.store import promotions
from raysys.store.tables import observations
from raysys.tracking import Tracking
from tests import kma
from tests.e2e.conftest import Home
from tests.e2e.ground import Ground, Station, pause, running_step

ANSWER_SECONDS = 0.2
RUN_SECONDS = 600.0
TRIALS = 4
# About how long a step lasts; a kill falls somewhere in it.
CRAWL = {1: ("plan_windows", 0.3), 2: ("fetch", 1.2), 3: ("fetch", 1.2), 4: ("fetch", 1.2)}
TRAIN = {
    1: ("take_snapshot", 0.5),
    2: ("open_run", 2.0),
    3: ("search", 9.0),
    4: ("refit", 3.0),
    5: ("evaluate", 2.0),
    6: ("register", 3.0),
    7: ("promote", 0.2),
    8: ("close_run", 1.0),
}
# A study is written down once a second: a trial that ended later may be tried again.
UNWRITTEN = timedelta(seconds=2.5)


class Kills(NamedTuple):
    """What is killed in which step (by number) of one run."""

    workflow: str
    by_step: dict[int, str]


def everywhere(workflow: str, what: str) -> Kills:
    return Kills(workflow, dict.fromkeys(CRAWL if workflow == "crawl" else TRAIN, what))


QUICK = [
    Kills("crawl", {2: "worker", 3: "task"}),
    Kills("train", {3: "task", 4: "node", 5: "worker", 6: "cluster"}),
]
FULL = [
    *(everywhere(workflow, what) for workflow in ("crawl", "train") for what in ("worker", "task")),
    everywhere("crawl", "node"),
    Kills("train", {3: "node", 4: "node", 5: "node"}),
    Kills("crawl", {1: "cluster", 3: "cluster"}),
    Kills("train", {1: "cluster", 3: "cluster", 4: "cluster", 7: "cluster"}),
    Kills("train", {2: "cluster", 5: "cluster", 6: "cluster", 8: "cluster"}),
]


def named(kills: Kills, number: int, slow: bool) -> ParameterSet:
    name = f"{kills.workflow}-{number}-{'-'.join(dict.fromkeys(kills.by_step.values()))}"
    return pytest.param(kills, id=name, marks=[pytest.mark.slow] if slow else [])


CASES = [named(kills, n, n >= len(QUICK)) for n, kills in enumerate([*QUICK, *FULL])]


@pytest.fixture(scope="module")
def station() -> Iterator[kma.KmaServer]:
    def slowly(_request: int) -> None:
        pause(ANSWER_SECONDS)

    with kma.KmaServer(Station(), faults=slowly) as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def ground(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, station: kma.KmaServer
) -> Iterator[Ground]:
    """A running raysys of a head and a second node, on each database."""
    environment = {
        "RAYSYS_FAMILIES": '["insurance", "atmos"]',
        "RAYSYS_ATMOS_SOURCE": "kma",
        "RAYSYS_KMA_BASE_URL": station.url,
        "RAYSYS_NUM_CPUS": "1",  # after the replicas' shares too few for a trial: those go elsewhere
    }
    if request.param == "postgres":
        cluster = request.getfixturevalue("postgres_cluster")
        environment["RAYSYS_DATABASE_URL"] = cluster.create_database()
    with Ground(Home(tmp_path_factory.mktemp("kills"), environment), station) as ground:
        engine = db.open_engine(ground.settings.database)
        ingest.import_sample(engine, families.get("insurance"), seed=7, now=datetime.now(UTC))
        engine.dispose()
        yield ground


@pytest.fixture(scope="module")
def years() -> Iterator[int]:
    """The first years of spans that no other test crawls."""
    return iter(range(1990, 2020, 2))


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("kills", CASES)
def test_nothing_is_lost_or_done_twice(ground: Ground, kills: Kills, years: Iterator[int]) -> None:
    if kills.workflow == "crawl":
        year = next(years)
        since, until = date(year, 1, 1), date(year + 1, 12, 31)
        args, lengths = ("atmos", since.isoformat(), until.isoformat()), CRAWL
    else:
        args, lengths = ("insurance", TRIALS), TRAIN
        with Registry(ground.settings.tracking_uri) as registry:
            registry.delete_alias("insurance", "champion")  # which an equal model would not beat
    with Client(ground.settings) as client:
        run_id = client.start(kills.workflow, *args)
        finished = inflict(ground, client, run_id, kills, lengths)
        run = client.wait(run_id, RUN_SECONDS)
        assert run.status == "SUCCESSFUL", run.error
        check_steps(client, run_id, finished)
        if kills.workflow == "crawl":
            check_rows(ground, since, until)
        else:
            check_model(ground, run)
            check_study(ground, run, [event for _, event in client.events(run_id)], finished)


class Finished(NamedTuple):
    """What was finished when a part was killed."""

    at: datetime
    steps: list[StepRun]


def inflict(
    ground: Ground,
    client: Client,
    run_id: str,
    kills: Kills,
    lengths: dict[int, tuple[str, float]],
) -> list[Finished]:
    """Kill what is to be killed in each step, and return what was finished each time."""
    finished = []
    for number, what in kills.by_step.items():
        step = running_step(client, run_id, number)
        assert step is not None, f"the run ended before step {number}"
        name, seconds = lengths[number]
        assert step.name == name
        pause(ground.dice.random() * seconds)
        done = [s for s in client.steps(run_id) if s.status == "SUCCESSFUL"]
        finished.append(Finished(at=datetime.now(UTC), steps=done))
        ground.kill(what, int(str(step.where).rpartition(":")[2]))
    return finished


def check_steps(client: Client, run_id: str, finished: list[Finished]) -> None:
    """No step that was finished is begun again."""
    now = {step.number: step for step in client.steps(run_id)}
    assert {step.status for step in now.values()} == {"SUCCESSFUL"}
    for moment in finished:
        for step in moment.steps:
            assert now[step.number].attempts == step.attempts, (moment.at, step)


def check_rows(ground: Ground, since: date, until: date) -> None:
    """Every hour is stored once, with the value that the station gave."""
    truth = ground.station.station.truth(since, until)  # type: ignore[attr-defined]
    engine = db.open_engine(ground.settings.database)
    query = sa.select(observations.c.time, observations.c.temperature).where(
        observations.c.time.between(min(truth), max(truth))
    )
    with db.reading(engine) as connection:
        rows = connection.execute(query).all()
    engine.dispose()
    assert len(rows) == len(truth)
    assert dict(rows) == truth  # type: ignore[arg-type]


def check_model(ground: Ground, run: Run) -> None:
    """One version is registered, and the alias moved to it once."""
    with Registry(ground.settings.tracking_uri) as registry:
        versions = registry.versions("insurance")
        champion = registry.champion("insurance")
    made = [v for v in versions if v.tags.get(WORKFLOW_TAG) == run.id]
    assert [v.version for v in made] == [run.output["version"]]
    engine = db.open_engine(ground.settings.database)
    moves = [m for m in promotions.history(engine, "insurance") if run.id in m.id]
    engine.dispose()
    assert [move.to_version for move in moves] == [run.output["version"]]
    assert champion is not None
    assert champion.version == run.output["version"]


def check_study(ground: Ground, run: Run, events: list[Event], finished: list[Finished]) -> None:
    """Trials that had ended are not tried again, and each is one run in MLflow."""
    ended = [e for e in events if e.step == "search" and "trial_id" in e.fields]
    for moment in finished:
        kept = {e.fields["trial_id"] for e in ended if e.at < moment.at - UNWRITTEN}
        again = {e.fields["trial_id"] for e in ended if e.at > moment.at}
        assert not kept & again
    with Tracking(ground.settings.tracking_uri) as tracking:
        trials = tracking.trials(run.output["run_id"])
    assert len(trials) >= run.output["trials"]
    assert Counter(e.fields["trial_id"] for e in ended).keys() <= trials.keys()
    assert run.output["trials"] >= TRIALS
