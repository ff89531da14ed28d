"""The workflow engine's database: its connection, its schema, its JSON; shared by the engine and its clients."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from dbos import DBOS
from dbos import Serializer as DbosSerializer
from filelock import FileLock

from raysys import log
from raysys.durable import codec
from raysys.errors import Unavailable
from raysys.settings import Settings

APPLICATION = "raysys"
EXECUTOR = "raysys-worker"
# The number of the workflows' shape. Raise it when the order of steps of an existing workflow changes: runs of the
# older shape are then RESUMABLE, and not continued by code that does not know them.
VERSION = "1"
SCHEMA = "dbos"
BUSY_SECONDS = 30


class JsonSerializer(DbosSerializer):
    """JSON, and errors as data: nothing in the database is ever executed, as a pickle would be."""

    def name(self) -> str:
        """Return the name that is stored beside each value."""
        return "raysys_json"

    def serialize(self, data: Any) -> str:
        """Return `data` as JSON text."""
        return json.dumps(data, default=_default, separators=(",", ":"), ensure_ascii=False)

    def deserialize(self, serialized_data: str) -> Any:
        """Return what the text holds; an error comes back as an error of its class."""
        value = json.loads(serialized_data)
        if isinstance(value, dict) and codec.ERROR_MARK in value:
            return codec.unpack(value[codec.ERROR_MARK])
        return value


def _default(value: Any) -> Any:
    if isinstance(value, BaseException):
        return {codec.ERROR_MARK: codec.pack(value)}
    from raysys.records import plain

    return plain(value)


def open_sqlite(settings: Settings) -> sa.Engine | None:
    """Return an engine in WAL mode for the workflow database, or None where it is Postgres."""
    url = settings.workflow_database
    if not url.startswith("sqlite"):
        return None
    path = _file(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(
        url, pool_size=20, max_overflow=0, connect_args={"timeout": BUSY_SECONDS}
    )
    sa.event.listen(engine, "connect", _tune)
    return engine


def _tune(connection: Any, _record: Any) -> None:
    # What DBOS itself sets, and WAL: without it each reader stops the writer.
    connection.isolation_level = "IMMEDIATE"
    connection.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _file(url: str) -> Path:
    return Path(str(sa.make_url(url).database))


def migrate(settings: Settings) -> None:
    """Make the workflow database, or bring it to this version; of many callers one does it and the others wait."""
    url = settings.workflow_database
    settings.home.mkdir(parents=True, exist_ok=True)
    quiet()
    try:
        if url.startswith("sqlite"):
            with FileLock(settings.home / "workflows.lock"):
                engine = cast(sa.Engine, open_sqlite(settings))
                with engine.connect():  # sets WAL, which stays with the file
                    pass
                engine.dispose()
                DBOS.migrate(url, schema=SCHEMA)
        else:
            DBOS.migrate(url, schema=SCHEMA)
    except sa.exc.OperationalError as error:
        raise unavailable(settings, error) from error


def check(settings: Settings, engine: sa.Engine) -> None:
    """Raise Unavailable when the workflow database does not answer or was never made."""
    url = settings.workflow_database
    missing = url.startswith("sqlite") and not _file(url).exists()
    table = "workflow_status" if url.startswith("sqlite") else f"{SCHEMA}.workflow_status"
    try:
        if not missing:
            with engine.connect() as connection:
                connection.execute(sa.text(f"SELECT 1 FROM {table} LIMIT 1"))
            return
    except sa.exc.ProgrammingError:
        missing = True
    except sa.exc.OperationalError as error:
        if "no such table" not in str(error):
            raise unavailable(settings, error) from error
        missing = True
    if missing:
        raise Unavailable(
            f"The workflow database {_shown(url)} was not made yet. Run `raysys up` once.",
            database=_shown(url),
        )


def unavailable(settings: Settings, error: Exception) -> Unavailable:
    """Return the error that says that the workflow database does not answer."""
    where = _shown(settings.workflow_database)
    cause = getattr(error, "orig", None) or error
    return Unavailable(
        f"The workflow database {where} does not answer: {cause}. Is it running?", database=where
    )


def _shown(url: str) -> str:
    return sa.make_url(url).render_as_string(hide_password=True)


class _ToStructlog(logging.Handler):
    """Hands the engine's log lines on to raysys' own log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log `record` as an event of the part `dbos`."""
        logger = log.get("dbos")
        level = record.levelname.lower()
        getattr(logger, level if level in ("debug", "info", "warning") else "error")(
            "dbos", text=record.getMessage()
        )


def quiet() -> None:
    """Send the engine's log lines, from warnings on, to raysys' log."""
    logger = logging.getLogger("dbos")
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    if not any(isinstance(handler, _ToStructlog) for handler in logger.handlers):
        logger.handlers[:] = [_ToStructlog()]
