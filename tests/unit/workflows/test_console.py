from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from raysys.records import Event
from workflows import console, crawl, train

AT = datetime(2024, 6, 1, 12, 30, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Undo what `main` does to the log: its stream is closed after the test."""
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("done", "text"), [(3, "12:30:05 fetch 3/9: 24 new"), (None, "12:30:05 fetch: 24 new")]
)
def test_event_is_one_line(done: int | None, text: str) -> None:
    event = Event(
        workflow_id="x", at=AT, step="fetch", message="24 new", done=done, total=done and 9
    )
    assert console.line(event) == text


@pytest.mark.parametrize("main", [crawl.main, train.main])
def test_without_a_database_it_says_what_to_do(
    main: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAYSYS_HOME", str(tmp_path))
    assert main(["atmos"]) == 1  # type: ignore[operator]
    assert "Run `raysys up` once" in capsys.readouterr().err
