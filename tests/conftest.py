"""Fixtures that several parts of the tests share: a fixed clock and the databases."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from raysys import db
from raysys.settings import Settings
from tests.mlflow_server import MlflowServer
from tests.postgres import Cluster, available

NOW = dt.datetime(2026, 3, 15, 12, 0, tzinfo=dt.UTC)
DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def now() -> dt.datetime:
    """The moment at which every test happens."""
    return NOW


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """A PostgreSQL server of this session's own."""
    reason = available()
    if reason:
        pytest.skip(reason)
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[Cluster]:
    """A PostgreSQL server of this module's own, which it may stop."""
    if reason := available():
        pytest.skip(reason)
    with Cluster() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_cluster: Cluster) -> str:
    """The URL of a new, empty PostgreSQL database."""
    return postgres_cluster.create_database()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new, empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'raysys.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """Settings with a home and a database of this test's own."""
    return Settings(home=tmp_path / "home", database_url=database_url)


@pytest.fixture
def engine(settings: Settings) -> Iterator[sa.Engine]:
    """An engine on a migrated database."""
    db.migrate(settings)
    engine = db.open_engine(settings.database)
    yield engine
    engine.dispose()


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data, where there is one."""
    if not DATA.is_dir():
        pytest.skip(f"the real data of {DATA} is not here")
    return DATA


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The tracking URI of an MLflow server of this session's own."""
    with MlflowServer(tmp_path_factory.mktemp("mlflow")) as server:
        yield server.url
