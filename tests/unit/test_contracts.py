"""The import contract holds, and a planted import breaks it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).parent / "lint-imports"
PACKAGES = ("raysys", "deployments", "workflows", "kuberay")

PLANTED = {
    "raysys imports deployments": ("raysys/store/events.py", "import deployments"),
    "deployments imports workflows": ("deployments/http.py", "import workflows"),
    "workflows imports deployments": ("workflows/worker.py", "import deployments"),
    "a family imports a pipeline": ("raysys/families/insurance.py", "import raysys.pipelines.tune"),
    "records import settings": ("raysys/records.py", "import raysys.settings"),
    "a workflow imports the engine": ("workflows/train.py", "import dbos"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [str(LINT), "--config", str(folder / "pyproject.toml"), "--no-cache"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_import_contract_holds(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout


def test_each_planted_import_breaks_the_contract(copy: Path) -> None:
    for name, line in PLANTED.values():
        file = copy / name
        file.write_text(f"{file.read_text()}\n\ndef planted() -> None:\n    {line}\n")
    done = lint(copy)
    assert done.returncode == 1
    kept = [case for case, plant in PLANTED.items() if not named(plant, done.stdout)]
    assert kept == []


def named(plant: tuple[str, str], report: str) -> bool:
    """Say whether the report names this importer and what it imports, in one line."""
    importer = plant[0].removesuffix(".py").replace("/", ".")
    imported = plant[1].removeprefix("import ")
    return any(f"{importer} -> {imported} (" in line for line in report.splitlines())
