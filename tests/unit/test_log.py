"""Logs are events with ids and without secrets."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from raysys import log
from raysys.settings import Settings


@pytest.fixture
def out(tmp_path: Path) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    log.configure(Settings(home=tmp_path, log_format="json"), stream)
    yield stream
    structlog.reset_defaults()


def test_event_carries_bound_ids(out: io.StringIO) -> None:
    with log.bound(workflow_id="w1", family="atmos"):
        log.get("crawl").info("window_stored", new=24)
    log.get("crawl").info("done")
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first["event"] == "window_stored"
    assert (first["workflow_id"], first["family"], first["part"], first["new"]) == (
        "w1",
        "atmos",
        "crawl",
        24,
    )
    assert "workflow_id" not in second


def test_secret_is_masked_by_its_name(out: io.StringIO) -> None:
    log.get("kma").warning("refused", serviceKey="abc123", api_token="t0p", code="30")
    assert "abc123" not in out.getvalue()
    assert "t0p" not in out.getvalue()
    assert '"30"' in out.getvalue()


def test_lower_level_is_not_logged(out: io.StringIO) -> None:
    log.get("kma").debug("asked")
    assert out.getvalue() == ""


def test_every_process_appends_to_the_log_file(out: io.StringIO, tmp_path: Path) -> None:
    with log.bound(workflow_id="w1"):
        log.get("crawl").info("stored", api_token="t0p")
    (line,) = (tmp_path / "logs" / "raysys.jsonl").read_text().splitlines()
    kept = json.loads(line)
    assert (kept["event"], kept["workflow_id"], kept["api_token"]) == ("stored", "w1", "***")
    assert kept["pid"] > 0
    assert "pid" not in json.loads(out.getvalue())


def test_the_log_file_is_json_where_a_terminal_gets_text(tmp_path: Path) -> None:
    stream = io.StringIO()
    log.configure(Settings(home=tmp_path, log_format="console"), stream)
    try:
        raise ValueError("no")
    except ValueError:
        log.get("crawl").exception("failed")
    finally:
        structlog.reset_defaults()
    kept = json.loads((tmp_path / "logs" / "raysys.jsonl").read_text())
    assert "ValueError: no" in kept["exception"]
    assert "failed" in stream.getvalue()


def test_no_file_is_written_where_none_is_wanted(tmp_path: Path) -> None:
    log.configure(Settings(home=tmp_path, log_file="none"), io.StringIO())
    log.get("crawl").info("stored")
    structlog.reset_defaults()
    assert list(tmp_path.iterdir()) == []
