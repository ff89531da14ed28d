"""Processes of a home are found by their mark and ended by their id; nobody else's are touched."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import psutil
import pytest

from raysys.errors import Conflict, Unavailable
from raysys.laptop import processes
from raysys.settings import Settings

WAITS = [sys.executable, "-c", "import signal; signal.pause()"]
IGNORES = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()",
]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def test_end_all_ends_what_was_spawned_and_nothing_of_another_home(
    settings: Settings, tmp_path: Path
) -> None:
    other = Settings(home=tmp_path / "other")
    mine = processes.spawn(WAITS, settings=settings, environment={}, log=tmp_path / "log")
    theirs = processes.spawn(WAITS, settings=other, environment={}, log=tmp_path / "log")
    try:
        assert [p.pid for p in processes.find(settings)] == [mine.pid]
        assert processes.end_all(settings) == 1
        assert mine.wait(5) is not None
        assert theirs.poll() is None
    finally:
        processes.end_all(other)
        theirs.wait(5)


def test_a_process_that_ignores_the_request_is_killed(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "log"
    stubborn = processes.spawn(IGNORES, settings=settings, environment={}, log=log)
    processes.wait_until(lambda: "ready" in log.read_text(), "it", timeout_seconds=20)
    processes.end([psutil.Process(stubborn.pid)], grace_seconds=0.2)
    assert not psutil.pid_exists(stubborn.pid)
    stubborn.wait(5)


def test_waiting_for_a_process_that_fails_names_it_and_shows_its_log(
    settings: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    fails = [sys.executable, "-c", "import sys; print('no such thing'); sys.exit(3)"]
    process = processes.spawn(fails, settings=settings, environment={}, log=log)
    with pytest.raises(Unavailable, match=r"The thing ended with code 3(?s:.*)no such thing"):
        processes.wait_until(
            lambda: False, "The thing", timeout_seconds=20, process=process, log=log
        )


def test_waiting_ends_at_its_deadline() -> None:
    with pytest.raises(Unavailable, match="was not ready after 0 s"):
        processes.wait_until(lambda: False, "The thing", timeout_seconds=0.0, interval_seconds=0.01)


def test_a_taken_port_is_refused_with_the_setting_and_the_process(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            Conflict, match=rf"RAYSYS_HTTP_PORT={port} is taken by process \d+ \(.*\)"
        ):
            processes.refuse_taken({"http_port": port}, settings)
    processes.refuse_taken({"http_port": port}, settings)
