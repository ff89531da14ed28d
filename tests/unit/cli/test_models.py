"""What `raysys models` prints from the tables alone."""

from __future__ import annotations

import json
import sys
from datetime import timedelta

import pytest
import sqlalchemy as sa

from raysys import cli
from raysys.records import Act, Promotion
from raysys.settings import Settings
from raysys.store import decisions, promotions
from tests.conftest import NOW


def printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> str:
    """Run a command in this process and return what it printed."""
    monkeypatch.setattr(sys, "argv", ["raysys", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    return capsys.readouterr().out


def test_history_shows_moves_and_decisions_in_one_story(
    engine: sa.Engine,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    move = Promotion(
        id="m",
        family="insurance",
        alias="champion",
        action="promote",
        to_version="2",
        from_version="1",
        actor="train",
        reason="better",
        at=NOW,
    )
    promotions.append(engine, move)
    for hours, action, dry in ((-1, "alert", False), (1, "rollback", True)):
        at = NOW + timedelta(hours=hours)
        reason = f"because of {action}"
        act = Act(id=action, family="insurance", at=at, action=action, reason=reason, dry_run=dry)  # type: ignore[arg-type]
        decisions.append(engine, act)
    out = printed(monkeypatch, capsys, "models", "history", "insurance")
    lines = [line for line in out.splitlines() if "2026-03-15" in line]
    words = ("decided: rollback (dry run)", "promote", "decided: alert")
    assert [word in line for word, line in zip(words, lines, strict=True)] == [True] * 3
    story = json.loads(printed(monkeypatch, capsys, "models", "history", "insurance", "--json"))
    assert [each["reason"] for each in story] == [
        "because of rollback",
        "better",
        "because of alert",
    ]
