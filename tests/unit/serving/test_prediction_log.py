"""The log of predictions, whatever its database does."""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa

from raysys import db
from raysys.serving.prediction_log import Entry, PredictionLog, Rows, to_database
from raysys.settings import Settings
from raysys.store.tables import predictions


def entry(number: int = 0) -> Entry:
    return Entry(f"r{number}", "1", 1_700_000_000.0 + number, 0.002, [[1.0], [2.0]], [3.0, 4.0])


def test_each_row_of_a_request_is_one_prediction(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    db.migrate(settings)
    log = PredictionLog("waves", to_database(settings), 10)
    log.offer(entry())
    assert log.flush()
    engine = db.open_engine(settings.database)
    with db.reading(engine) as connection:
        rows = connection.execute(sa.select(predictions).order_by(predictions.c.outputs)).all()
    engine.dispose()
    assert [(row.request_id, row.row, row.inputs, row.outputs) for row in rows] == [
        ("r0", 0, [1.0], 3.0),
        ("r0", 1, [2.0], 4.0),
    ]
    assert rows[0].latency_ms == 2.0


def test_a_flood_is_sampled_fairly_and_counted() -> None:
    written: Rows = []
    log = PredictionLog("waves", written.extend, 50)
    for number in range(5000):
        log.offer(entry(number))
    log.flush()
    numbers = {int(row["request_id"][1:]) for row in written}
    assert len(numbers) == 50
    assert 1500 < sum(numbers) / 50 < 3500
    assert log.outcomes == {"stored": 50, "skipped": 4950}


def test_a_database_that_is_away_costs_only_what_it_was_given() -> None:
    def fail(rows: Rows) -> None:
        raise OSError("away")

    log = PredictionLog("waves", fail, 50)
    for number in range(1000):
        log.offer(entry(number))
    assert not log.flush()
    assert log.outcomes == {"skipped": 950, "dropped": 50}


def test_a_database_that_hangs_holds_one_more_sample_and_no_request() -> None:
    asked, answered, written = threading.Event(), threading.Event(), []

    def hang(rows: Rows) -> None:
        asked.set()
        answered.wait(10)
        written.extend(rows)

    log = PredictionLog("waves", hang, 50)
    log.offer(entry())
    writer = threading.Thread(target=log.flush)
    writer.start()
    assert asked.wait(10)
    for number in range(10_000):
        log.offer(entry(number))
    answered.set()
    writer.join(10)
    log.flush()
    assert log.outcomes == {"stored": 51, "skipped": 9_950}
    assert len(written) == 2 * 51


def test_nothing_is_logged_of_a_share_of_nothing() -> None:
    log = PredictionLog("waves", lambda rows: None, 50, share=0.0)
    log.offer(entry())
    assert log.outcomes == {"skipped": 1}


def test_the_thread_writes_and_its_end_writes_the_rest() -> None:
    written: Rows = []
    log = PredictionLog("waves", written.extend, 50)
    log.start()
    log.offer(entry())
    log.close()
    assert len(written) == 2
    assert "log" not in {thread.name for thread in threading.enumerate()}


def test_offering_beside_the_writer_loses_next_to_nothing() -> None:
    written: Rows = []
    log = PredictionLog("waves", written.extend, 1_000_000)
    threads = [
        threading.Thread(target=lambda: [log.offer(entry()) for _ in range(2000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        log.flush()
    log.flush()
    assert len(written) >= 2 * 8000 - 2 * 8  # an entry may come as its list is being written
