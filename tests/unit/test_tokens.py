"""Tokens are made once, kept for their owner alone, and overridden by the setting."""

from __future__ import annotations

import stat
from pathlib import Path

from raysys import tokens
from raysys.settings import Settings


def test_a_token_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    token = tokens.api_token(settings)
    assert len(token) == 64
    assert tokens.api_token(settings) == token
    assert stat.S_IMODE((settings.home / tokens.API_TOKEN_NAME).stat().st_mode) == 0o600
    assert tokens.ray_token(settings) != token


def test_the_setting_wins_over_the_kept_token(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", api_token="given")  # type: ignore[arg-type]
    assert tokens.api_token(settings) == "given"
    assert not settings.home.exists()
