"""Engines, transactions and inserts."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
import sqlalchemy as sa

from raysys import db
from raysys.errors import Unavailable
from raysys.store.tables import snapshots

ROW = {
    "family": "f",
    "uri": "u",
    "rows": 1,
    "gaps": [],
    "created_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
}


def rows(*names: str) -> list[dict[str, object]]:
    return [{**ROW, "hash": name} for name in names]


def test_sqlite_runs_in_wal_mode(engine: sa.Engine) -> None:
    with db.reading(engine) as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"


def test_only_new_rows_are_inserted_and_counted(engine: sa.Engine) -> None:
    with db.writing(engine) as connection:
        assert db.insert_new(connection, snapshots, rows("a", "b")) == 2
        assert db.insert_new(connection, snapshots, rows("b", "c", "c")) == 1
        assert db.insert_new(connection, snapshots, []) == 0


def test_failed_transaction_leaves_nothing(engine: sa.Engine) -> None:
    with pytest.raises(KeyError), db.writing(engine) as connection:
        db.insert_new(connection, snapshots, rows("a"))
        raise KeyError
    with db.reading(engine) as connection:
        assert connection.execute(sa.select(snapshots)).all() == []


def test_many_writers_wait_for_each_other(engine: sa.Engine) -> None:
    errors: list[Exception] = []

    def write(name: str) -> None:
        try:
            for i in range(10):
                with db.writing(engine) as connection:
                    connection.execute(sa.select(sa.func.count()).select_from(snapshots)).one()
                    db.insert_new(connection, snapshots, rows(f"{name}{i}"))
        except Exception as error:  # noqa: BLE001  told by the test itself
            errors.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with db.reading(engine) as connection:
        assert len(connection.execute(sa.select(snapshots)).all()) == 40


def test_database_without_tables_is_unavailable(database_url: str) -> None:
    engine = db.open_engine(database_url)
    with pytest.raises(Unavailable, match="raysys up"), db.reading(engine) as connection:
        connection.execute(sa.select(snapshots))
    engine.dispose()
