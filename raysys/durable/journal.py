"""The log of a step: what its process writes while it runs, kept in the artifact store by the run's id."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from raysys import cluster, log
from raysys.artifacts import Artifacts
from raysys.durable.context import Position
from raysys.errors import NotFound, Unavailable

COPY_SECONDS = 3.0  # what a process that is killed may leave untold
LIMIT_BYTES = 256_000  # of one step; of more, the end is kept


def folder(workflow_id: str) -> str:
    """Return the path of everything that a run keeps in the artifact store besides its results."""
    return f"runs/{workflow_id}"


def names(artifacts: Artifacts, workflow_id: str) -> list[str]:
    """Return the names of the run's logs, in the order of its steps and their attempts."""
    return artifacts.names(f"{folder(workflow_id)}/logs")


def read(artifacts: Artifacts, workflow_id: str, name: str) -> str:
    """Return one log of a run; an empty text where it is gone."""
    try:
        return artifacts.get(uri(artifacts, workflow_id, name)).decode(errors="replace")
    except NotFound:
        return ""


def uri(artifacts: Artifacts, workflow_id: str, name: str) -> str:
    """Return the address of one log of a run."""
    return artifacts.uri(f"{folder(workflow_id)}/logs/{name}")


@contextmanager
def kept(artifacts: Artifacts, position: Position) -> Iterator[None]:
    """Keep what this process writes inside the block, every few seconds and at its end."""
    began = datetime.now(UTC)
    name = f"{position.number:03d}-{position.step}-{began:%Y%m%dT%H%M%S%f}.log"
    copier = _Copier(artifacts, f"{folder(position.workflow_id)}/logs/{name}")
    copier.start()
    try:
        yield
    finally:
        copier.stop()


class _Copier(threading.Thread):
    def __init__(self, artifacts: Artifacts, path: str) -> None:
        super().__init__(name="raysys-journal", daemon=True)
        self._artifacts = artifacts
        self._path = path
        self._starts = {file: _size(file) for file in cluster.output_files()}
        self._copied = b""
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(COPY_SECONDS):
            self._copy()

    def stop(self) -> None:
        """Copy the rest."""
        self._stopping.set()
        self.join()
        sys.stdout.flush()
        sys.stderr.flush()
        self._copy()

    def _copy(self) -> None:
        written = b"".join(_after(file, start) for file, start in self._starts.items())
        if written == self._copied:
            return
        try:
            self._artifacts.put(self._path, written)
        except Unavailable as error:  # a step does not fail because its log could not be kept
            log.get("step").warning("log.lost", error=error.message)
        else:
            self._copied = written


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _after(file: Path, start: int) -> bytes:
    """Return what was written to `file` after `start`, of much the end."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(start, _size(file) - LIMIT_BYTES))
            return stream.read(LIMIT_BYTES)
    except OSError:
        return b""
