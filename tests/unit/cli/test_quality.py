"""What `raysys quality`, `lineage` and `data feedback` print, over a database and without MLflow."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from raysys import db
from raysys.artifacts import Artifacts
from raysys.errors import NotFound
from raysys.families import get
from raysys.pipelines import snapshot
from raysys.records import ModelVersion
from raysys.registry import Registry
from raysys.settings import Settings
from raysys.sources.sample import insurance_rows
from raysys.store import examples, predictions
from tests.unit.cli.test_cli import run

INSURANCE = get("insurance")


@pytest.fixture
def home(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with one version, made of forty rows, and one logged prediction of 9000."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(migrated, home / "raysys.db")
    settings, now = Settings(home=home), datetime.now(UTC)
    engine = db.open_engine(settings.database)
    rows: Any = {"family": "insurance", "source": "people.csv", "workflow_id": None, "now": now}
    examples.add(engine, rows=insurance_rows(40, 1), **rows)
    taken = snapshot.take(
        engine, Artifacts(settings.artifact_root), INSURANCE, None, workflow_id="t", now=now
    )
    row = {"id": "p", "request_id": "r", "family": "insurance", "version": "1", "at": now}
    row |= {"latency_ms": 1.0, "inputs": INSURANCE.example, "outputs": 9000.0}
    predictions.append_many(engine, [row])
    engine.dispose()
    register(monkeypatch, {"raysys.snapshot": taken.hash, "raysys.workflow_id": "training-1"})
    return home


def register(monkeypatch: pytest.MonkeyPatch, tags: dict[str, str]) -> None:
    tags = tags | {"raysys.scores": json.dumps({"model": {INSURANCE.metric: 2100.0}})}
    known = ModelVersion(
        family="insurance", version="1", run_id="run-1", sha256="", model_uri="", tags=tags
    )

    def version(self: Registry, family: str, version: str) -> ModelVersion:
        if (family, version) != ("insurance", "1"):
            raise NotFound(f"There is no {family} {version}.")
        return known

    monkeypatch.setattr(Registry, "version", version)
    monkeypatch.setattr(Registry, "versions", lambda self, family: [known])


def test_a_truth_from_a_file_shows_in_the_live_error(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home / "truth.csv"
    file.write_text("request_id,charges\nr,9500\n")
    assert run(monkeypatch, home, "data", "feedback", "insurance", str(file)) == 0
    assert "about 1 predictions anew" in capsys.readouterr().out
    assert run(monkeypatch, home, "quality", "insurance", "--join") == 0
    told = capsys.readouterr()
    assert "1 truths are new" in told.err
    assert "100%" in told.out
    assert "500" in told.out
    assert run(monkeypatch, home, "quality", "insurance", "--json") == 0
    [version] = json.loads(capsys.readouterr().out)["versions"]
    assert (version["test_error"], version["overall"]["error"]) == (2100.0, 500.0)
    assert version["overall"]["baseline_error"] > 0


def test_without_predictions_it_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, home, "quality", "atmos") == 0
    assert "No prediction of atmos was logged in 7 days." in capsys.readouterr().out


def test_a_faulty_file_of_truth_exits_1_with_each_fault(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home / "truth.csv"
    file.write_text("request_id,charges\nr,high\n")
    assert run(monkeypatch, home, "data", "feedback", "insurance", str(file)) == 1
    assert "line.2: charges 'high' is not a number" in capsys.readouterr().err


def test_a_lineage_is_printed_link_by_link(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, home, "lineage", "r") == 0
    told = capsys.readouterr().out
    for link in ("p, request r", "insurance/1", "/#/runs/run-1", "training-1", "people.csv"):
        assert link in told
    assert "recomputed   the same" in told
    assert run(monkeypatch, home, "lineage", "insurance/1", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["same"] is True
    assert shown["recomputed"] == shown["snapshot"]["hash"]


@pytest.mark.parametrize("name", ["nothing", "insurance/2", "nobody/1"])
def test_the_lineage_of_nothing_exits_1(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run(monkeypatch, home, "lineage", name) == 1
    assert "There is no" in capsys.readouterr().err
