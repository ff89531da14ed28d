"""A file that many processes append lines to, and that turns over when it is full."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_SECONDS = 1.0


class LogFile:
    """Lines at the end of `path`; a full file becomes `path.1`, that one `path.2`, and so on up to `kept`.

    A line is one write at the end of the file, so that those of several processes never mix. A file that cannot be
    written to loses its lines and nothing else: who logs does not fail.
    """

    def __init__(self, path: Path, most_bytes: int, kept: int) -> None:
        self.path = path
        self._most_bytes = most_bytes
        self._kept = kept
        self._handle: int | None = None
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        """Append a line."""
        data = line.encode(errors="replace") + b"\n"
        with self._lock, suppress(OSError):
            handle = self._current()
            if os.fstat(handle).st_size + len(data) > self._most_bytes:
                self._turn_over()
                handle = self._current()
            os.write(handle, data)

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        with self._lock:
            self._drop()

    def _current(self) -> int:
        if self._handle is not None and self._moved(self._handle):
            self._drop()
        if self._handle is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._handle = os.open(self.path, flags, 0o600)
        return self._handle

    def _moved(self, handle: int) -> bool:
        """Return whether another process has turned the file over."""
        try:
            return self.path.stat().st_ino != os.fstat(handle).st_ino
        except FileNotFoundError:
            return True

    def _drop(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _turn_over(self) -> None:
        gone = FileNotFoundError  # another process was faster, as it was when the file is small
        with suppress(Timeout, gone), FileLock(self._named("lock"), timeout=LOCK_SECONDS):
            if self.path.stat().st_size < self._most_bytes // 2:
                return
            for number in range(self._kept - 1, 0, -1):
                with suppress(FileNotFoundError):
                    self._named(number).replace(self._named(number + 1))
            self.path.replace(self._named(1))

    def _named(self, suffix: int | str) -> Path:
        return self.path.with_name(f"{self.path.name}.{suffix}")
