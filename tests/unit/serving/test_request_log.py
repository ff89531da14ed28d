from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import structlog

from raysys import log
from raysys.serving import request_log
from raysys.settings import Settings


@pytest.mark.parametrize("inputs", [False, True])
def test_what_was_asked_is_logged_only_on_request(tmp_path: Path, inputs: bool) -> None:
    out = io.StringIO()
    settings = Settings(home=tmp_path, log_format="json", log_requests=True, log_inputs=inputs)
    log.configure(settings, out)
    try:
        requests = request_log.of("waves", settings)
        assert requests is not None
        requests.predicted("r-1", "3", 0.0012, [[1.0, 2.0]], [[7.5]])
        requests.refused("r-2", 422)
    finally:
        structlog.reset_defaults()
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first["request_id"] == "r-1"
    assert (first["family"], first["version"], first["rows"]) == ("waves", "3", 1)
    assert first["milliseconds"] == 1.2
    assert first.get("inputs") == ([[1.0, 2.0]] if inputs else None)
    assert (second["event"], second["status"]) == ("refused", 422)


def test_nothing_is_logged_by_default(tmp_path: Path) -> None:
    assert request_log.of("waves", Settings(home=tmp_path)) is None
