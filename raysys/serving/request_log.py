"""A record for each request, for those who want it: off unless a setting switches it on."""

from __future__ import annotations

from typing import Any

import msgspec

from raysys import log
from raysys.settings import Settings


class RequestLog:
    """Logs requests of one family: which version answered, how long it took; what was asked only with `inputs`."""

    def __init__(self, family: str, inputs: bool = False) -> None:
        self._log = log.get("request").bind(family=family)
        self._inputs = inputs

    def predicted(
        self, request_id: str, version: str, seconds: float, rows: list[Any], answers: list[Any]
    ) -> None:
        """Log an answer of the model."""
        shown: dict[str, Any] = {"rows": len(rows)}
        if self._inputs:
            shown |= {"inputs": msgspec.to_builtins(rows), "outputs": answers}
        self._log.info(
            "predicted",
            request_id=request_id,
            version=version,
            milliseconds=round(seconds * 1e3, 3),
            **shown,
        )

    def refused(self, request_id: str, status: int) -> None:
        """Log a request that no model answered."""
        self._log.info("refused", request_id=request_id, status=status)


def of(family: str, settings: Settings) -> RequestLog | None:
    """Return the log that settings ask for, or None."""
    return RequestLog(family, settings.log_inputs) if settings.log_requests else None
