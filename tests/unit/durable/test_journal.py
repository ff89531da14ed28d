from __future__ import annotations

from pathlib import Path

import pytest

from raysys import cluster
from raysys.artifacts import Artifacts
from raysys.durable import journal
from raysys.durable.context import Position
from raysys.errors import Unavailable

POSITION = Position(workflow_id="run-1", number=3, step="search")


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the process writes to, with what an earlier step wrote."""
    file = tmp_path / "worker.err"
    file.write_text("of an earlier step\n")
    monkeypatch.setattr(cluster, "output_files", lambda: [file, tmp_path / "absent.out"])
    return file


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(str(tmp_path / "artifacts"))


def test_log_holds_what_the_step_wrote_and_nothing_else(output: Path, artifacts: Artifacts) -> None:
    with journal.kept(artifacts, POSITION), output.open("a") as file:
        file.write("trial 1\n")
    with output.open("a") as file:
        file.write("of a later step\n")
    (name,) = journal.names(artifacts, "run-1")
    assert name.startswith("003-search-")
    assert journal.read(artifacts, "run-1", name) == "trial 1\n"


def test_log_is_there_while_the_step_runs(
    output: Path, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    monkeypatch.setattr(journal, "COPY_SECONDS", 0.01)
    with journal.kept(artifacts, POSITION):
        with output.open("a") as file:
            file.write("half\n")
        found: list[str] = []
        for _ in range(500):  # the first copies may be of an empty file
            found = [
                journal.read(artifacts, "run-1", name) for name in journal.names(artifacts, "run-1")
            ]
            if found == ["half\n"]:
                break
            threading.Event().wait(0.01)
        assert found == ["half\n"]


def test_of_a_long_log_the_end_is_kept(
    output: Path, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LIMIT_BYTES", 4)
    with journal.kept(artifacts, POSITION), output.open("a") as file:
        file.write("123456789")
    assert journal.read(artifacts, "run-1", journal.names(artifacts, "run-1")[0]) == "6789"


def test_step_goes_on_when_its_log_cannot_be_kept(
    output: Path, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Unavailable("the store is away")

    monkeypatch.setattr(Artifacts, "put", refuse)
    with journal.kept(artifacts, POSITION), output.open("a") as file:
        file.write("x")
    assert journal.names(artifacts, "run-1") == []
    assert journal.read(artifacts, "run-1", "none") == ""
