"""The image's stage `build`, replayed into a clean folder: minutes and 2.4 GB, so only where slow tests run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raysys.serving.standby import PROGRAM

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
IMPORTS = (
    "import ray.serve, ray.tune, mlflow, keras, xgboost, dbos, deployments.app, workflows.worker"
)

pytestmark = pytest.mark.slow


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(c) for c in command], env=env, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_lock_and_the_wheel_make_a_whole_program(tmp_path: Path) -> None:
    uv = shutil.which("uv", path=f"{BIN}:/usr/local/bin:/usr/bin") or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    prefix, dist = tmp_path / "prefix", tmp_path / "dist"
    python = prefix / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", prefix)
    run(
        uv,
        "pip",
        "install",
        "-q",
        "--python",
        python,
        "--require-hashes",
        "-r",
        "kuberay/requirements.lock",
    )
    run(
        uv, "build", "-q", "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", dist
    )
    run(uv, "pip", "install", "-q", "--python", python, "--no-deps", *dist.glob("*.whl"))
    for folder in [f for f in prefix.rglob("tests") if "site-packages" in f.parts]:
        shutil.rmtree(folder, ignore_errors=True)
    clean = {"PATH": f"{prefix / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}
    run(python, "-c", IMPORTS, env=clean)
    for program in ("raysys", "ray", "serve", "mlflow"):
        run(prefix / "bin" / program, "--help", env=clean)
    run(prefix / "bin" / PROGRAM, "-v", env=clean)
