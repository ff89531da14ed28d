"""The workflows of CI: pinned, without rights that they do not need, and clean for an auditor of such things."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def content(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def test_there_is_one_for_each_need() -> None:
    assert {"check", "test", "image", "deploy", "train"} <= {path.stem for path in WORKFLOWS}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_by_a_commit(path: Path) -> None:
    used = re.findall(r"uses: (\S+)", path.read_text())
    assert used
    assert [u for u in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", u)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_rights_are_named_and_time_is_limited(path: Path) -> None:
    workflow = content(path)
    assert "permissions" in workflow
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"], name
        assert job["runs-on"] == "ubuntu-24.04", name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_script_is_written_by_who_starts_it(path: Path) -> None:
    for job in content(path)["jobs"].values():
        scripts = [step.get("run", "") for step in job["steps"]]
        assert not [
            script for script in scripts if "${{ inputs" in script or "${{ github.event" in script
        ]


def test_an_auditor_finds_nothing() -> None:
    zizmor = Path(sys.executable).parent / "zizmor"
    done = subprocess.run(
        [str(zizmor), "--offline", "--quiet", str(ROOT / ".github")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_commands_of_raysys_exist(path: Path) -> None:
    from typer.main import get_command

    from kuberay.cli import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    used = set(re.findall(r"raysys kube (\w+)", path.read_text()))
    assert used <= known
