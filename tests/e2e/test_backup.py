"""A demo's whole state is backed up while it runs, wiped, restored, and served again as it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from raysys import families
from raysys.laptop.processes import wait_until
from tests.e2e.conftest import Home

pytestmark = pytest.mark.timeout(1200)  # it brings everything up twice


def state(home: Home) -> dict[str, Any]:
    """Return all that the command line tells of what is kept, without what the clock changes."""
    schedules = [(s["name"], s["cron"], s["paused"]) for s in home.json("schedules", "list")]
    return {
        "rows": {name: home.json("data", "show", name) for name in families.names()},
        "runs": [(r["id"], r["status"], r["output"]) for r in home.json("runs", "list")],
        "models": {name: home.json("models", "list", name) for name in families.names()},
        "promotions": {name: home.json("models", "history", name) for name in families.names()},
        "schedules": schedules,
    }


def answers(home: Home) -> dict[str, Any]:
    found = {}
    with home.client() as http:
        for name in families.names():
            kind = families.get(name)
            answer = http.put(f"/predict/{kind.route}", json=kind.example)
            found[name] = answer.json() if answer.is_success else None
    return found


def test_a_wiped_home_serves_what_it_served(home: Home, tmp_path: Path) -> None:
    home.run("schedules", "pause", "crawl-atmos")
    try:
        before, answered = state(home), answers(home)
        home.run("backup", str(tmp_path / "raysys.tar.gz"))
        assert "raysys down" in home.run("restore", str(tmp_path / "raysys.tar.gz"), code=1)
        home.run("down")
        tokens = {name: (home.path / name).read_text() for name in ("api-token", "ray-token")}
        shutil.move(home.path / "logs", tmp_path / "logs")
        shutil.rmtree(home.path)
        home.run("restore", str(tmp_path / "raysys.tar.gz"))
        for name, text in tokens.items():  # a backup holds none; others of this session know these
            (home.path / name).write_text(text)
            (home.path / name).chmod(0o600)
        shutil.copytree(tmp_path / "logs", home.path / "logs", dirs_exist_ok=True)  # likewise
        home.run("up")
        wait_until(lambda: answers(home) == answered, "The models", timeout_seconds=60)
        assert state(home) == before
    finally:
        home.run("schedules", "resume", "crawl-atmos")
