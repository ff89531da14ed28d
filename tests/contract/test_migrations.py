"""The schema: migrated once whoever asks, and equal to the tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from raysys import db
from raysys.errors import Unavailable
from raysys.settings import Settings
from raysys.store import predictions
from raysys.store.tables import metadata

MIGRATE = "from raysys import db; from raysys.settings import Settings; db.migrate(Settings())"


def test_migrated_schema_equals_the_tables(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        options = {"compare_type": True, "version_table": "raysys_version"}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_migrating_again_changes_nothing(settings: Settings, engine: sa.Engine) -> None:
    db.migrate(settings)
    with db.reading(engine) as connection:
        assert connection.execute(
            sa.text("SELECT version_num FROM raysys_version")
        ).scalars().all() == ["0002"]


def test_a_schema_of_a_later_release_is_left_as_it_is(
    settings: Settings, engine: sa.Engine
) -> None:
    with db.writing(engine) as connection:
        connection.execute(sa.text("UPDATE raysys_version SET version_num = '9999'"))
    db.migrate(settings)
    with db.reading(engine) as connection:
        found = connection.execute(sa.text("SELECT version_num FROM raysys_version")).scalars()
        assert found.all() == ["9999"]


def test_predictions_logged_by_the_first_release_are_kept(settings: Settings) -> None:
    settings.home.mkdir(parents=True)
    engine = db.open_engine(settings.database)
    config = Config()
    config.set_main_option("script_location", str(Path(db.__file__).parent / "migrations"))
    old = (
        "INSERT INTO predictions (id, request_id, family, version, at, latency_ms, inputs, outputs)"
        " VALUES ('p', 'r', 'f', '1', '2026-01-01', 1.5, '[1]', '[2]')"
    )
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(sa.text(old))
        connection.commit()
    db.migrate(settings)
    with db.writing(engine) as connection:
        connection.execute(sa.text(old.replace("'p'", "'q'")))  # by a replica of that release
    [(_, first), (_, second)] = predictions.find(engine, "r")
    assert {first.id, second.id} == {"p", "q"}
    assert (first.row, first.key, first.anchor, first.truth) == (0, None, None, None)
    engine.dispose()


def test_two_processes_may_migrate_at_once(settings: Settings) -> None:
    migrate = [sys.executable, "-c", MIGRATE]
    both = [
        subprocess.Popen(migrate, env=_environment(settings), stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outcomes = [process.communicate(timeout=60)[1].decode() for process in both]
    assert outcomes == ["", ""]
    assert [process.returncode for process in both] == [0, 0]
    engine = db.open_engine(settings.database)
    assert {"promotions", "observations"} <= set(sa.inspect(engine).get_table_names())
    engine.dispose()


def test_two_homes_of_one_database_may_migrate_at_once(settings: Settings, tmp_path) -> None:
    if settings.database.startswith("sqlite"):
        pytest.skip("a SQLite file belongs to one home")
    migrate = [sys.executable, "-c", MIGRATE]
    homes = [{**_environment(settings), "RAYSYS_HOME": str(tmp_path / name)} for name in "ab"]
    both = [subprocess.Popen(migrate, env=home, stderr=subprocess.PIPE) for home in homes]
    assert [process.communicate(timeout=60)[1].decode() for process in both] == ["", ""]


def test_failed_migration_leaves_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import op

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(op, "create_index", fail)
    with pytest.raises(RuntimeError, match="planted"):
        db.migrate(settings)
    engine = db.open_engine(settings.database)
    assert "observations" not in sa.inspect(engine).get_table_names()
    engine.dispose()
    monkeypatch.undo()
    db.migrate(settings)


@pytest.mark.parametrize(
    "statement", ["UPDATE promotions SET reason = 'x'", "DELETE FROM promotions"]
)
def test_promotions_refuse_change(engine: sa.Engine, statement: str) -> None:
    row = {"id": "a", "family": "f", "alias": "champion", "action": "promote", "to_version": "1"}
    insert = (
        "INSERT INTO promotions (id, family, alias, action, to_version, actor, reason, report, at) "
        "VALUES (:id, :family, :alias, :action, :to_version, 'me', 'r', '{}', '2026-01-01')"
    )
    with db.writing(engine) as connection:
        connection.execute(sa.text(insert), row)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text(statement))


def test_absent_database_is_unavailable_without_its_password(tmp_path) -> None:
    engine = db.open_engine("postgresql+psycopg2://u:hidden@127.0.0.1:1/none")
    with pytest.raises(Unavailable) as caught, db.reading(engine) as connection:
        connection.execute(sa.text("SELECT 1"))
    assert "hidden" not in str(caught.value)
    engine.dispose()


def _environment(settings: Settings) -> dict[str, str]:
    import os

    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAYSYS_")}
    return {**kept, **settings.environment()}
