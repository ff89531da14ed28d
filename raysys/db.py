"""The door to the SQL database: engines, transactions, inserts, migrations; no table is here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock
from sqlalchemy.dialects import postgresql, sqlite

from raysys import log
from raysys.errors import Unavailable
from raysys.settings import Settings

MIGRATION_LOCK = 7_267_795  # any constant: the key of the advisory lock on Postgres


def open_engine(url: str) -> sa.Engine:
    """Return an engine for `url`: SQLite in WAL mode, Postgres with liveness checks."""
    if url.startswith("sqlite"):
        path = sa.make_url(url).database
        Path(str(path)).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url, connect_args={"timeout": 30})
        sa.event.listen(engine, "connect", _tune_sqlite)
        sa.event.listen(engine, "begin", _begin_immediate)
        return engine
    return sa.create_engine(
        url, pool_pre_ping=True, pool_size=5, max_overflow=5, connect_args={"connect_timeout": 10}
    )


def _tune_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not open transactions of its own: see _begin_immediate.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_immediate(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later would fail with "database is locked" when
    # another wrote between.
    connection.exec_driver_sql(
        "BEGIN IMMEDIATE" if not connection.get_execution_options().get("read") else "BEGIN"
    )


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection for reading; a database that does not answer is `Unavailable`."""
    with _translated(engine), engine.connect().execution_options(read=True) as connection:
        yield connection


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection in a transaction that commits at the end, or leaves nothing behind."""
    with _translated(engine), engine.begin() as connection:
        yield connection


@contextmanager
def _translated(engine: sa.Engine) -> Iterator[None]:
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
        where = engine.url.render_as_string(hide_password=True)
        raise Unavailable(
            f"The database {where} does not answer: {error.orig}. "
            "Is it running, and was `raysys up` run once?",
            database=where,
        ) from error


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> int:
    """Insert the rows whose primary key is not there yet; return how many that were."""
    if not rows:
        return 0
    statement = insert_statement(connection, table).on_conflict_do_nothing()
    added = connection.execute(statement.returning(*table.primary_key.columns), list(rows))
    return len(added.all())


def insert_statement(connection: sa.Connection, table: sa.Table) -> Any:
    """Return an INSERT into `table` that knows ON CONFLICT in the dialect of `connection`."""
    return (sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert)(table)


def migrate(settings: Settings) -> None:
    """Bring the schema to the newest revision; of many callers one migrates, the others wait.

    A schema that is newer than this code is left as it is: revisions only add, so that a release can be taken back.
    """
    from alembic.config import Config

    engine = open_engine(settings.database)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(settings.home / "migrate.lock"),
            _translated(engine),
            engine.connect() as connection,
        ):
            if connection.dialect.name == "postgresql":
                connection.execute(
                    sa.text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK}
                )
                connection.commit()
            config.attributes["connection"] = connection
            _upgrade(config)
    finally:
        engine.dispose()


def _upgrade(config: Any) -> None:
    from alembic import command
    from alembic.script.revision import ResolutionError
    from alembic.util import CommandError

    try:
        command.upgrade(config, "head")
    except CommandError as error:
        if not isinstance(error.__cause__, ResolutionError):
            raise
        log.get("db").warning("schema.newer", revision=error.__cause__.argument)
