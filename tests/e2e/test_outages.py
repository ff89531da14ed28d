"""The database is away for a minute in the middle of a crawl and of a training; both go on by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from raysys import db, families
from raysys.durable import Client
from raysys.pipelines import ingest
from raysys.records import WORKFLOW_TAG
from raysys.registry import Registry
from tests import kma
from tests.e2e.conftest import Home
from tests.e2e.ground import Ground, Station, pause, running_step
from tests.postgres import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
AWAY_SECONDS = 60.0
RUN_SECONDS = 600.0


@pytest.fixture(scope="module")
def ground(postgres_server: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A running raysys on a PostgreSQL of its own."""
    with kma.KmaServer(Station(), faults=lambda _: pause(0.2)) as station:
        environment = {
            "RAYSYS_FAMILIES": '["insurance", "atmos"]',
            "RAYSYS_ATMOS_SOURCE": "kma",
            "RAYSYS_KMA_BASE_URL": station.url,
            "RAYSYS_DATABASE_URL": postgres_server.create_database(),
        }
        with Ground(Home(tmp_path_factory.mktemp("away"), environment), station) as ground:
            engine = db.open_engine(ground.settings.database)
            ingest.import_sample(engine, families.get("insurance"), seed=7, now=datetime.now(UTC))
            engine.dispose()
            yield ground


@pytest.mark.parametrize(
    ("workflow", "args", "step"),
    [
        ("crawl", ("atmos", "1990-01-01", "1991-12-31"), 2),
        ("train", ("insurance", 4), 3),
        ("train", ("insurance", 4), 6),
    ],
)
def test_run_outlives_a_minute_without_its_database(
    ground: Ground, postgres_server: Cluster, workflow: str, args: tuple[object, ...], step: int
) -> None:
    with Registry(ground.settings.tracking_uri) as registry:
        registry.delete_alias("insurance", "champion")
    with Client(ground.settings) as client:
        run_id = client.start(workflow, *args)
        assert running_step(client, run_id, step) is not None
    postgres_server.go_away()
    pause(AWAY_SECONDS)
    postgres_server.come_back()
    with Client(ground.settings) as client:
        run = client.wait(run_id, RUN_SECONDS)
        assert run.status == "SUCCESSFUL", run.error
        if workflow == "crawl":
            assert run.output["new"] + run.output["known"] == 730 * 24
            return
    with Registry(ground.settings.tracking_uri) as registry:
        made = [
            version
            for version in registry.versions("insurance")
            if version.tags.get(WORKFLOW_TAG) == run_id
        ]
    assert len(made) == 1
