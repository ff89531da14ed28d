"""Predictions find their truth, late, in parts, twice or contradicted, on both databases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from raysys import db
from raysys.pipelines import truth
from raysys.records import Feedback, JoinReport
from raysys.settings import Settings
from raysys.store import feedback, predictions
from raysys.store.tables import truths
from tests.contract import ground
from tests.contract.ground import ATMOS, DEGREES, HOUR, INSURANCE, crawl, hour, log, price, say


def join(engine: sa.Engine, settings: Settings, number: int, family: Any = ATMOS) -> JoinReport:
    return truth.join(engine, family, settings, now=hour(number))


def known(engine: sa.Engine, id: str) -> list[float]:
    query = sa.select(truths.c.value).where(truths.c.prediction_id == id)
    with db.reading(engine) as connection:
        return list(connection.execute(query.order_by(truths.c.position)).scalars())


def state(engine: sa.Engine, id: str) -> str | None:
    return predictions.find(engine, id)[0][1].truth


# -- hours crawled later ---------------------------------------------------------------------------


def test_the_hours_that_follow_come_as_they_are_crawled(
    engine: sa.Engine, settings: Settings
) -> None:
    crawl(engine, 0, 101)
    log(engine, "p", 100)
    first = join(engine, settings, 101)
    assert (first.placed, first.added, state(engine, "p")) == (1, 0, "waiting")
    assert predictions.find(engine, "p")[0][1].anchor == hour(100)
    crawl(engine, 101, 111)
    assert join(engine, settings, 111).added == 10
    assert join(engine, settings, 111) == JoinReport(family="atmos")
    crawl(engine, 111, 140)
    last = join(engine, settings, 140)
    assert (last.added, last.completed, state(engine, "p")) == (14, 1, "complete")
    assert known(engine, "p") == DEGREES[101:125].tolist()
    assert join(engine, settings, 140) == JoinReport(family="atmos")


def test_a_named_hour_is_not_looked_up(engine: sa.Engine, settings: Settings) -> None:
    crawl(engine, 0, 140)
    log(engine, "p", 100, inputs=[1.0] * 72, anchor=hour(90))
    report = join(engine, settings, 140)
    assert (report.placed, report.added) == (0, 24)
    assert known(engine, "p") == DEGREES[91:115].tolist()


def test_an_input_that_no_hours_match_is_given_up_when_the_series_is_a_day_beyond(
    engine: sa.Engine, settings: Settings
) -> None:
    crawl(engine, 0, 101)
    log(engine, "p", 100, inputs=[1.0] * 72)
    log(engine, "q", 100, inputs=["text"])
    assert join(engine, settings, 101).unplaced == 2
    crawl(engine, 101, 120)
    assert join(engine, settings, 120).unplaced == 2
    crawl(engine, 120, 126)
    assert join(engine, settings, 126).expired == 2
    assert state(engine, "p") == "expired"
    assert join(engine, settings, 127) == JoinReport(family="atmos")


def test_an_input_whose_gap_was_filled_is_found(engine: sa.Engine, settings: Settings) -> None:
    crawl(engine, 0, 110, lost=(60, 61))
    filled = DEGREES.copy()
    filled[59:63] = np.linspace(DEGREES[59], DEGREES[62], 4)
    log(engine, "p", 100, inputs=filled[29:101].tolist())
    assert join(engine, settings, 110).placed == 1
    assert predictions.find(engine, "p")[0][1].anchor == hour(100)


def test_of_equal_hours_the_newest_before_the_prediction_counts(
    engine: sa.Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = DEGREES.copy()
    same[:200] = 5.0
    monkeypatch.setattr(ground, "DEGREES", same)
    crawl(engine, 0, 190)
    log(engine, "p", 100)
    join(engine, settings, 190)
    assert predictions.find(engine, "p")[0][1].anchor == hour(100)


def test_an_hour_without_a_value_leaves_a_hole_until_the_wait_is_over(
    engine: sa.Engine, settings: Settings
) -> None:
    crawl(engine, 0, 101)
    log(engine, "p", 100)
    crawl(engine, 101, 140, lost=(110,))
    report = join(engine, settings, 140)
    assert (report.added, report.completed, state(engine, "p")) == (23, 0, "waiting")
    late = join(engine, settings, 100 + settings.truth_wait_days * 24 + 2)
    assert (late.expired, late.added) == (1, 0)
    assert len(known(engine, "p")) == 23


def test_a_flood_is_sampled_by_version_and_hour(engine: sa.Engine, settings: Settings) -> None:
    few = settings.model_copy(update={"truth_per_hour": 20})
    crawl(engine, 0, 140)
    for number in range(30):
        log(engine, f"{number:02}", 100, at=hour(100) + number * 2 * HOUR / 60)
    log(engine, "other", 100, version="2")
    early = truth.join(engine, ATMOS, few, now=hour(100) + HOUR / 2)
    assert (early.placed, early.skipped) == (11, 0)
    late = join(engine, few, 101)
    assert (late.placed, late.skipped) == (10, 10)
    assert state(engine, "29") == "skipped"
    say(engine, 102, Feedback(request_id="request-29", values=[1.0]), family="atmos")
    assert join(engine, few, 102).added == 1 + 23
    assert state(engine, "29") == "complete"
    assert known(engine, "29")[:2] == [1.0, DEGREES[102]]


# -- feedback --------------------------------------------------------------------------------------


def test_feedback_meets_its_prediction_by_request_and_row_or_by_key(
    engine: sa.Engine, settings: Settings
) -> None:
    price(engine, "a", request_id="r", row=0)
    price(engine, "b", request_id="r", row=1)
    price(engine, "c", key="trip-7")
    said = (
        Feedback(request_id="r", row=1, values=[2.0]),
        Feedback(key="trip-7", values=[3.0, None, 4.0]),
    )
    assert say(engine, 471, *said) == (2, 0)
    report = join(engine, settings, 472, INSURANCE)
    assert (report.matched, report.added, report.completed, report.surplus) == (2, 2, 2, 2)
    assert [known(engine, id) for id in "abc"] == [[], [2.0], [3.0]]
    assert [state(engine, id) for id in "abc"] == ["waiting", "complete", "complete"]
    assert join(engine, settings, 472, INSURANCE) == JoinReport(family="insurance")


def test_feedback_may_come_before_its_prediction_is_written(
    engine: sa.Engine, settings: Settings
) -> None:
    say(engine, 470, Feedback(key="k", values=[5.0]), Feedback(key="never", values=[6.0]))
    assert join(engine, settings, 470, INSURANCE).unmatched == 2
    price(engine, "a", key="k")
    report = join(engine, settings, 471, INSURANCE)
    assert (report.matched, report.unmatched, known(engine, "a")) == (1, 1, [5.0])
    assert join(engine, settings, 500, INSURANCE).unmatched == 1
    assert join(engine, settings, 501, INSURANCE) == JoinReport(family="insurance")


def test_of_truths_that_differ_the_latest_counts_and_repetition_changes_nothing(
    engine: sa.Engine, settings: Settings
) -> None:
    price(engine, "a", key="k")
    one, other = (Feedback(key="k", values=[value]) for value in (5.0, 6.0))
    counts = []
    for number, said in enumerate((one, one, other, one)):
        counts.append(say(engine, 480 + number, said))
        report = join(engine, settings, 481 + number, INSURANCE)
        counts.append((report.added, report.repeated, report.revised, report.outdated))
    assert counts[::2] == [(1, 0), (0, 1), (1, 0), (0, 1)]
    assert counts[1::2] == [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 1, 0)]
    assert known(engine, "a") == [5.0]


def test_of_one_delivery_the_later_line_counts(engine: sa.Engine, settings: Settings) -> None:
    price(engine, "a", key="k")
    said = [Feedback(key="k", values=[value]) for value in (5.0, 6.0, 7.0, 6.0)]
    assert say(engine, 480, *said) == (3, 1)
    report = join(engine, settings, 481, INSURANCE)
    assert (report.matched, report.added, report.revised) == (3, 1, 2)
    assert known(engine, "a") == [6.0]


def test_truth_told_late_and_out_of_order_does_not_replace_a_later_one(
    engine: sa.Engine, settings: Settings
) -> None:
    price(engine, "a", request_id="r", key="k")
    say(engine, 490, Feedback(request_id="r", values=[7.0]))
    join(engine, settings, 491, INSURANCE)
    say(engine, 480, Feedback(key="k", values=[5.0]))
    assert join(engine, settings, 492, INSURANCE).outdated == 1
    assert known(engine, "a") == [7.0]


def test_truth_in_parts_fills_its_places_and_the_series_the_rest(
    engine: sa.Engine, settings: Settings
) -> None:
    crawl(engine, 0, 101)
    log(engine, "p", 100)
    values = [None, 50.0]
    say(engine, 101, Feedback(request_id="request-p", values=values), family="atmos")
    assert join(engine, settings, 101).added == 1
    assert state(engine, "p") == "waiting"
    crawl(engine, 101, 140)
    assert join(engine, settings, 140).completed == 1
    assert known(engine, "p") == [DEGREES[101], 50.0, *DEGREES[103:125]]


def test_truths_go_with_their_predictions_and_feedback_by_age(
    engine: sa.Engine, settings: Settings
) -> None:
    price(engine, "a", key="k")
    say(engine, 471, Feedback(key="k", values=[5.0]))
    join(engine, settings, 472, INSURANCE)
    assert feedback.forget(engine, hour(471), dry_run=False) == 0
    assert feedback.forget(engine, hour(472), dry_run=True) == 1
    assert feedback.forget(engine, hour(472), dry_run=False) == 1
    assert predictions.forget(engine, hour(480), 100, dry_run=False) == 1
    assert known(engine, "a") == []
