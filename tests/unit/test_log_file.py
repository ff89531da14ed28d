from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from raysys.log_file import LogFile

LINE = "x" * 99  # and a new line, so that a hundred fill a file


def lines(folder: Path) -> list[str]:
    """Return every line of the file and of those before it."""
    files = [path for path in folder.glob("log*") if path.suffix != ".lock"]
    return [line for path in files for line in path.read_text().splitlines()]


def test_a_full_file_turns_over_and_the_oldest_goes(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "log", most_bytes=10_000, kept=2)
    for number in range(500):
        file.write(f"{number:03d}{LINE[3:]}")
    assert {p.name for p in tmp_path.glob("log*")} - {"log.lock"} == {"log", "log.1", "log.2"}
    assert all(path.stat().st_size <= 10_000 for path in tmp_path.glob("log*"))
    kept = sorted(line[:3] for line in lines(tmp_path))
    assert kept[-1] == "499"
    assert len(kept) == 100 * 3
    file.close()


def test_a_file_that_another_process_turned_over_is_followed(tmp_path: Path) -> None:
    one, other = (LogFile(tmp_path / "log", most_bytes=10_000, kept=3) for _ in range(2))
    one.write("first")
    for _ in range(101):
        other.write(LINE)
    one.write("last")
    assert (tmp_path / "log").read_text().splitlines()[-1] == "last"
    assert "first" in (tmp_path / "log.1").read_text()
    one.close()
    other.close()


def write(path: Path, name: str) -> None:
    """Write many lines, as another process."""
    file = LogFile(path, most_bytes=20_000, kept=50)
    for number in range(400):
        file.write(f"{name}{number:03d}" + "x" * 90)
    file.close()


def test_lines_of_several_processes_are_whole_and_none_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write, args=(tmp_path / "log", name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    found = lines(tmp_path)
    assert {len(line) for line in found} == {94}
    assert {line[:4] for line in found} == {f"{n}{i:03d}" for n in "abc" for i in range(400)}


@pytest.mark.parametrize("parent", ["file", "folder"])
def test_a_file_that_cannot_be_written_stops_nobody(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "log").mkdir(parents=True)
    LogFile(tmp_path / parent / "log", most_bytes=10_000, kept=1).write("lost")
