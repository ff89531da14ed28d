"""When the MLflow server of a home is started again, and when it is left alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from raysys.laptop import keeper
from raysys.laptop.keeper import keep_services
from raysys.laptop.services import MlflowServer
from raysys.settings import RUNNING_NAME, Settings


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[MlflowServer]:
    """What was started; nothing is, really, as MLflow takes half a minute."""
    found: list[MlflowServer] = []
    monkeypatch.setattr(MlflowServer, "start", lambda self: found.append(self))
    return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Settings]:
    """The settings of a home that runs, whose MLflow port nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        (tmp_path / RUNNING_NAME).write_text("{}")
        yield Settings(home=tmp_path, mlflow_port=held.getsockname()[1])


def test_a_server_that_is_gone_is_started_again(
    home: Settings, started: list[MlflowServer]
) -> None:
    assert keep_services(home)
    assert len(started) == 1


def test_nothing_is_started_where_nothing_is_to_run(
    home: Settings, started: list[MlflowServer]
) -> None:
    (home.home / RUNNING_NAME).unlink()
    assert not keep_services(home)
    assert not started


def test_nothing_is_started_beside_up_and_down(home: Settings, started: list[MlflowServer]) -> None:
    with FileLock(home.home / "up.lock"):
        assert not keep_services(home)
    assert not started


def test_a_server_of_others_is_not_ours_to_start(
    home: Settings, started: list[MlflowServer]
) -> None:
    named = Settings(home=home.home, mlflow_tracking_uri="http://127.0.0.1:9")
    assert not keep_services(named)
    assert not started


def test_a_server_that_is_starting_is_left_alone(
    home: Settings, started: list[MlflowServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_is_there", lambda settings: True)
    assert not keep_services(home)
    assert not started
