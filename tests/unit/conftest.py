"""Unit tests know one database: a SQLite file, migrated once and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import structlog

from raysys import db
from raysys.settings import Settings


@pytest.fixture(autouse=True)
def unconfigured_logs() -> Iterator[None]:
    """Forget where a test sent its logs: the stream that it captured is closed after it."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """The URL of a new, empty SQLite database."""
    return f"sqlite:///{tmp_path / 'raysys.db'}"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    home = tmp_path_factory.mktemp("migrated")
    settings = Settings(home=home, database_url=f"sqlite:///{home / 'raysys.db'}")
    db.migrate(settings)
    return home / "raysys.db"


@pytest.fixture
def engine(settings: Settings, migrated: Path) -> Iterator[sa.Engine]:
    """An engine on a migrated database of this test's own."""
    shutil.copy(migrated, settings.database.removeprefix("sqlite:///"))
    engine = db.open_engine(settings.database)
    yield engine
    engine.dispose()
