"""Unit tests leave Ray Serve's schema out, which takes seconds to import: tests/ray checks against it."""

from __future__ import annotations

import pytest

from kuberay import checks


@pytest.fixture(autouse=True)
def without_the_schema_of_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "serve_faults", lambda _config: [])
