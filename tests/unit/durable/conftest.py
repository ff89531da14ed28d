"""An engine on SQLite in the test's own process: no Ray, no network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysys import durable
from raysys.durable import Client, queues
from raysys.durable.engine import Engine
from raysys.settings import Settings
from tests.unit.durable import flows


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Settings:
    home = tmp_path_factory.mktemp("home")
    shutil.copy(migrated, home / "raysys.db")
    return Settings(home=home)


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queues, "POLL_SECONDS", 0.05)
        with Engine(settings) as engine:
            yield engine


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[Client]:
    durable.migrate(settings)
    with Client(settings) as client:
        yield client


@pytest.fixture(autouse=True)
def no_calls() -> None:
    flows.calls.clear()
