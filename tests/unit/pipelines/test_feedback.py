"""A file of truth is kept whole, or refused with each fault."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from raysys import families
from raysys.errors import InvalidInput
from raysys.pipelines import feedback
from raysys.store import feedback as stored
from tests.conftest import NOW

ATMOS, INSURANCE = families.get("atmos"), families.get("insurance")


def sent(engine: sa.Engine, folder: Path, family: str, text: str) -> tuple[int, int, int]:
    path = folder / "truth.csv"
    path.write_text(text)
    report = feedback.import_csv(engine, families.get(family), path, now=NOW)
    return report.read, report.new, report.known


def kept(engine: sa.Engine, family: str) -> list[tuple[object, ...]]:
    return [
        (each.request_id, each.key, each.row, each.values, each.source)
        for batch in stored.batches(engine, family, 10)
        for each in batch
    ]


def test_lines_are_values_by_request_and_row_or_by_key(engine: sa.Engine, tmp_path: Path) -> None:
    text = "request_id,row,charges\nr,0,9000.5\nr,1,100\n"
    assert sent(engine, tmp_path, "insurance", text) == (2, 2, 0)
    assert sent(engine, tmp_path, "insurance", text) == (2, 0, 2)
    assert sent(engine, tmp_path, "insurance", "key,value\ntrip 7,3\n") == (1, 1, 0)
    assert sorted(kept(engine, "insurance"), key=str) == [
        ("r", None, 0, [9000.5], "truth.csv"),
        ("r", None, 1, [100.0], "truth.csv"),
        (None, "trip 7", 0, [3.0], "truth.csv"),
    ]


def test_values_of_one_answer_are_gathered_by_position(engine: sa.Engine, tmp_path: Path) -> None:
    text = "key,position,temperature\nk,2,3.5\nk,0,1.5\nk,2,4.5\n"
    assert sent(engine, tmp_path, "atmos", text) == (3, 1, 0)
    assert kept(engine, "atmos") == [(None, "k", 0, [1.5, None, 4.5], "truth.csv")]


@pytest.mark.parametrize(
    ("family", "text", "reasons"),
    [
        ("insurance", "value\n1\n", ["give either a column request_id or a column key"]),
        ("insurance", "key,request_id,value\nk,r,1\n", ["give either a column request_id"]),
        ("insurance", "key\nk\n", ["give either a column value or a column charges"]),
        ("insurance", "key,value,why\nk,1,x\n", ["column why is unknown"]),
        (
            "insurance",
            "key,value,row\n,1,0\nk,high,0\nk,nan,-1\nk,1,1.5\n",
            ["1 to 128 printable", "'high' is not", "between 0", "'nan' is not", "'1.5' is not"],
        ),
        ("atmos", "key,value,position\nk,1,24\n", ["position must lie between 0 and 23"]),
    ],
)
def test_a_faulty_file_is_refused_as_a_whole(
    engine: sa.Engine, tmp_path: Path, family: str, text: str, reasons: list[str]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        sent(engine, tmp_path, family, text)
    found = [issue["reason"] for issue in refused.value.issues]
    assert len(found) == len(reasons)
    assert all(reason in told for reason, told in zip(reasons, found, strict=True))
    assert kept(engine, family) == []
