"""The way to a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.errors import SourceBusy, SourceError
from raysys.settings import Settings
from raysys.sources.api import Api


@pytest.fixture
def quick(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, source_attempts=2, source_backoff_seconds=0)


def ask(base_url: str, settings: Settings) -> None:
    api = Api("x", base_url, settings)
    try:
        api.ask("p", {}, api.check_status)
    finally:
        api.close()


def test_nobody_there_is_busy(quick: Settings) -> None:
    with pytest.raises(SourceBusy, match="connection failed"):
        ask("http://127.0.0.1:1", quick)


def test_proxy_of_the_environment_is_used_but_not_for_this_machine(
    quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.kma import KmaServer

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with KmaServer({}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with pytest.raises(SourceError, match="404"):  # said by the proxy: the host does not exist
            ask("http://kma.invalid/", quick)
        with pytest.raises(SourceBusy, match="connection failed"):
            ask("http://127.0.0.1:1/", quick)


def test_address_without_a_scheme_is_refused(quick: Settings) -> None:
    with pytest.raises(SourceError, match="base URL"):
        ask("apis.data.go.kr/1360000", quick)
