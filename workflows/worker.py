"""The worker: which workflows it runs and what the clock starts; Ray hosts it as one detached actor."""

from __future__ import annotations

from raysys import log
from raysys.durable.service import Service
from raysys.settings import Settings
from workflows import schedules
from workflows.monitor import Pulse

MODULES = (
    "workflows.canary",
    "workflows.crawl",
    "workflows.train",
    "workflows.maintenance",
    "workflows.monitor",
    "workflows.quality",
)


class Worker(Service):
    """Runs the workflows of raysys until its process ends; Ray then starts it again."""

    def __init__(self) -> None:
        settings = Settings()
        log.configure(settings)
        super().__init__(settings, MODULES, schedules.table)
        Pulse(lambda: bool(self.ping()["ready"])).start()
