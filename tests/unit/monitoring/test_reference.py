from __future__ import annotations

from pathlib import Path

from raysys.metrics import METRICS
from raysys.monitoring import reference

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_page_is_what_the_code_says() -> None:
    text = reference.text()
    assert PAGE.read_text() == text, "python -m raysys.monitoring.reference > docs/metrics.md"


def test_no_cell_of_a_table_has_a_bar() -> None:
    rows = [line for line in reference.text().splitlines() if line.startswith("| `")]
    assert {line.count("|") for line in rows} == {3, 5}
    assert len(rows) > len(METRICS)
