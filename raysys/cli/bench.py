"""`raysys bench`: hands over to the benchmark, which lives with the tests of a source checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

import raysys
from raysys.errors import NotFound

SOAK_SECONDS = 1800.0
QUICK_SOAK_SECONDS = 180.0


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and shorter runs.")] = False,
    soak: Annotated[
        bool, typer.Option("--soak", help="Half a load for 30 minutes (--quick: 3) and no more.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of bench.json and bench.svg.")] = Path("bench"),
) -> None:
    """Measure this server beside plain FastAPI, in a home of its own, and print the ratios."""
    root = source_root()
    words = ["--out", str(out.absolute()), *(["--quick"] if quick else [])]
    if soak:
        words += ["--soak", str(QUICK_SOAK_SECONDS if quick else SOAK_SECONDS)]
    done = subprocess.run([sys.executable, "-m", "tests.bench", *words], cwd=root, check=False)
    raise typer.Exit(1 if done.returncode else 0)


def source_root() -> Path:
    """Return the folder of the source; raises NotFound where only the package is installed."""
    root = Path(raysys.__file__).parents[1]
    if not (root / "tests" / "bench" / "__main__.py").exists():
        raise NotFound(
            "The benchmark and its rival servers are not part of the installed package. "
            "Run `make bench` in a clone of the source."
        )
    return root
