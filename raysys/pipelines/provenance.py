"""What made a model: versions, commit and settings of a training; not its rows, which a snapshot is."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import raysys
from raysys.families.base import Family
from raysys.records import Snapshot, plain

PACKAGES = ("raysys", "ray", "optuna", "numpy", "pandas", "onnx", "onnxruntime")


def of(family: Family, snapshot: Snapshot, *, seed: int, trials: int) -> dict[str, Any]:
    """Return everything that repeats a training of `family` on `snapshot`, as plain data."""
    return {
        "family": family.name,
        "snapshot": plain(snapshot),
        "seed": seed,
        "trials": trials,
        "space": {name: plain(choice) for name, choice in family.space().items()},
        "candidates": family.candidates(),
        "epochs": family.epochs,
        "packages": packages(family),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "git_commit": git_commit(),
    }


def packages(family: Family) -> dict[str, str]:
    """Return the versions of the packages that a model of `family` depends on, where installed."""
    found = {}
    for name in (*PACKAGES, *family.framework_packages):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # one of two names of a distribution, such as tensorflow and tensorflow-cpu
    return found


def git_commit() -> str | None:
    """Return the commit of the checkout that raysys runs from; None outside one or without git."""
    here = Path(raysys.__file__).parent
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607  wherever git is installed
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
