"""The real worker crawls the simulated station; another process starts it and follows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from raysys import db, durable
from raysys.durable import Client
from raysys.errors import InvalidInput
from raysys.settings import Settings
from raysys.store import observations


@pytest.fixture(scope="module")
def client(cluster: Settings) -> Iterator[Client]:
    db.migrate(cluster)
    durable.migrate(cluster)
    durable.ensure_worker(cluster)
    durable.wait_ready(cluster, 60)
    with Client(cluster) as client:
        yield client
    durable.stop_worker(cluster)


def test_crawl_from_a_shell_stores_every_hour_once(client: Client, cluster: Settings) -> None:
    command = [sys.executable, "-m", "workflows.crawl", "atmos", "--since", "2024-01-01"]
    for new in (31 * 24, 0):
        done = subprocess.run(
            [*command, "--until", "2024-01-31"], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        run = client.list(name="crawl", limit=1)[0]
        assert run.id in done.stdout
        assert run.output["new"] + run.output["missing_hours"] == new
    engine = db.open_engine(cluster.database)
    assert observations.span(engine, run.output["series"])[2] <= 31 * 24
    engine.dispose()


def test_crawl_of_what_is_no_series_fails_with_a_hint(client: Client) -> None:
    with pytest.raises(InvalidInput, match="raysys data import insurance FILE"):
        client.output(client.start("crawl", "insurance"), 60)


def test_schedules_are_listed_paused_and_triggered(client: Client) -> None:
    names = {each.name for each in client.schedules()}
    assert {"crawl-atmos", "train-atmos", "train-insurance"} <= names
    client.pause_schedule("crawl-atmos")
    assert client.schedule("crawl-atmos").paused
    client.resume_schedule("crawl-atmos")
    assert client.schedule("crawl-atmos").next_at is not None
    first = client.trigger_schedule("train-insurance")
    assert client.trigger_schedule("train-insurance") in {first, client.list(name="train")[0].id}
    client.wait(first, 60)


def test_triggers_at_once_are_one_run(client: Client, cluster: Settings) -> None:
    def trigger(_number: int) -> str:
        with Client(cluster) as own:
            return own.trigger_schedule("crawl-atmos")

    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(trigger, range(8)))
    assert len(ids) == 1
    assert client.wait(ids.pop(), 120).status == "SUCCESSFUL"


@pytest.mark.usefixtures("mlflow")
def test_maintenance_tells_what_would_go_and_monitor_what_there_is(client: Client) -> None:
    measured = client.output(client.start("monitor"), 60)["levels"]
    assert "data_age_hours" in {level["name"] for level in measured}
    before = len(client.list(limit=100))
    report = client.output(client.start("maintenance", True), 120)
    assert report["dry_run"]
    assert report["removed"]["runs"] == 0
    assert len(client.list(limit=100)) == before + 1
