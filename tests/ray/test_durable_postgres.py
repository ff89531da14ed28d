"""The engine on PostgreSQL, with the server stopped in the middle of a run and of waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysys import db
from raysys.durable import Client
from raysys.durable.engine import Engine
from raysys.errors import Unavailable
from raysys.settings import Settings
from tests.postgres import Cluster
from tests.unit.durable import flows


@pytest.fixture(scope="module")
def settings(postgres_server: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, database_url=postgres_server.create_database())
    db.migrate(settings)
    return settings


@pytest.fixture(scope="module", autouse=True)
def engine(settings: Settings) -> Iterator[Engine]:
    with Engine(settings) as engine:
        yield engine


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    flows.calls.clear()
    with Client(settings) as client:
        yield client


def test_run_fork_and_resume_on_postgres(client: Client) -> None:
    run_id = client.start("handling", "no")
    assert client.output(run_id, 30) == "no"
    assert client.output(client.fork(run_id, step=2), 30) == "no"
    assert flows.calls.count("refuse") == 1


def test_run_goes_on_after_the_database_was_away(
    client: Client, postgres_server: Cluster, settings: Settings
) -> None:
    run_id = client.start("counting", 60, 0.05)
    while not flows.calls:
        threading.Event().wait(0.02)
    postgres_server.go_away()
    with pytest.raises(Unavailable, match="does not answer"):
        client.run(run_id)
    threading.Event().wait(2)
    postgres_server.come_back()
    with Client(settings) as afterwards:
        assert afterwards.output(run_id, 120) == 60
        assert [step.status for step in afterwards.steps(run_id)] == ["SUCCESSFUL"] * 60


def test_client_of_a_database_that_is_away_says_so(tmp_path: Path) -> None:
    url = "postgresql+psycopg2://nobody@127.0.0.1:1/nothing"
    with pytest.raises(Unavailable, match="does not answer"):
        Client(Settings(home=tmp_path, database_url=url))
