"""What the worker's actor holds: an engine that is opened in the background, and opened again until it works."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from raysys import db, log
from raysys.records import Schedule
from raysys.settings import Settings

if TYPE_CHECKING:
    from raysys.durable.engine import Engine

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 15.0


class Service:
    """Runs the workflows of `modules`, started by the clock as `schedules` says.

    Making one never fails: an actor that fails while it is made is not started again by Ray. Without a database it
    tries on, and `ping` says why it is not ready.
    """

    def __init__(
        self,
        settings: Settings,
        modules: Sequence[str],
        schedules: Callable[[Settings], Sequence[Schedule]] | None = None,
    ) -> None:
        self._settings = settings
        self._modules = modules
        self._schedules = schedules
        self._log = log.get("worker")
        self._engine: Engine | None = None
        self._error: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._open, name="raysys-worker-open", daemon=True)
        self._thread.start()

    def _open(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            try:
                self._engine = self._opened()
            except Exception as error:  # noqa: BLE001  the rim: it tries on, and ping tells
                self._error = f"{type(error).__name__}: {error}"
                self._log.exception("worker.not_ready", error=str(error), again_in_seconds=pause)
                self._stopping.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                self._error = None
                self._log.info("worker.ready", pid=os.getpid())
                return

    def _opened(self) -> Engine:
        from raysys.durable.engine import Engine

        for module in self._modules:
            importlib.import_module(module)
        # On a cluster nobody ran `raysys up`: who runs the workflows brings both schemas up to date.
        db.migrate(self._settings)
        engine = Engine(self._settings)
        engine.open()
        if self._schedules is not None:
            engine.apply(self._schedules(self._settings))
        return engine

    def ping(self) -> dict[str, Any]:
        """Return whether it runs workflows, which, and why not."""
        from raysys.durable import flow

        return {
            "ready": self._engine is not None,
            "error": self._error,
            "pid": os.getpid(),
            "workflows": sorted(flow.registered()),
        }

    def stop(self) -> None:
        """Put the work down: it is taken up again by the next worker."""
        self._stopping.set()
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
