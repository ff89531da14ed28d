"""The log of predictions: a fair sample of each second, written by a thread that no request waits for."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from raysys import log
from raysys.settings import Settings

FLUSH_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 15.0

Rows = list[dict[str, Any]]


class Entry(NamedTuple):
    """One answered request; `key` is the caller's own name of it, `anchor` the hour of its last input value."""

    request_id: str
    version: str
    at: float
    seconds: float
    rows: list[Any]
    answers: list[Any]
    key: str | None = None
    anchor: datetime | None = None


class PredictionLog:
    """Keeps at most `per_second` requests of each second, each as likely as the others, and writes them.

    `write` gets the rows of the table `predictions`. When it fails, what it was given is dropped and
    counted, and it is asked less often until it works again. `outcomes` counts requests: `stored`,
    `skipped` (not of the sample) and `dropped`.
    """

    def __init__(
        self, family: str, write: Callable[[Rows], object], per_second: int, share: float = 1.0
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self._family = family
        self._write = write
        self._most = int(per_second * FLUSH_SECONDS)
        self._share = share
        self._kept: list[Entry] = []
        self._seen = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._flush_forever, name="log", daemon=True)

    def start(self) -> None:
        """Start the thread that writes."""
        self._thread.start()

    def close(self) -> None:
        """Write what is kept and end the thread."""
        self._ended.set()
        self._thread.join(5)

    def offer(self, entry: Entry) -> None:
        """Keep an entry, or not; takes a microsecond, and never waits."""
        kept = self._kept  # the writer's thread may take the list away meanwhile
        if self._share < 1.0 and random.random() >= self._share:  # noqa: S311  a sample, no secret
            self.outcomes["skipped"] += 1
            return
        self._seen += 1
        if len(kept) < self._most:
            kept.append(entry)
            return
        self.outcomes["skipped"] += 1
        # Of n entries the last is kept with the chance most/n, in the place of any of those before.
        place = int(random.random() * self._seen)  # noqa: S311  likewise
        if place < len(kept):
            kept[place] = entry

    def flush(self) -> bool:
        """Write what is kept; return whether that worked."""
        kept, self._kept, self._seen = self._kept, [], 0
        if not kept:
            return True
        try:
            self._write([row for entry in kept for row in self._rows(entry)])
        except Exception as error:  # noqa: BLE001  whatever the database does, predictions go on
            self.outcomes["dropped"] += len(kept)
            log.get("predictions").warning("not logged", requests=len(kept), error=str(error)[:200])
            return False
        self.outcomes["stored"] += len(kept)
        return True

    def _flush_forever(self) -> None:
        pause = FLUSH_SECONDS
        while not self._ended.wait(pause):
            pause = FLUSH_SECONDS if self.flush() else min(pause * 2, LONGEST_PAUSE_SECONDS)
        self.flush()

    def _rows(self, entry: Entry) -> Rows:
        return [
            {
                "id": uuid.uuid4().hex,
                "request_id": entry.request_id[:128],
                "family": self._family,
                "version": entry.version,
                "at": datetime.fromtimestamp(entry.at, UTC),
                "latency_ms": entry.seconds * 1e3,
                "inputs": msgspec.to_builtins(row),
                "outputs": answer,
                "row": number,
                "key": entry.key and entry.key[:128],
                "anchor": entry.anchor,
            }
            for number, (row, answer) in enumerate(zip(entry.rows, entry.answers, strict=True))
        ]


def to_database(settings: Settings) -> Callable[[Rows], object]:
    """Return a writer into the database of `settings`, which holds no connection between two calls."""

    def write(rows: Rows) -> object:
        # Here, as SQLAlchemy costs 30 MB that a replica which logs nothing need not have.
        from raysys import db
        from raysys.store import predictions

        engine = db.open_engine(settings.database)
        try:
            return predictions.append_many(engine, rows)
        finally:
            engine.dispose()

    return write
