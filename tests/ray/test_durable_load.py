"""The engine under load, in a process of its own; `-s` shows the figures."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

ROOMY = 3.0  # how much slower than promised an idle machine may be, when others work beside it


@pytest.mark.slow
@pytest.mark.parametrize(("database", "most_ms"), [("sqlite", 10.0), ("postgres", 25.0)])
def test_steps_are_cheap_and_a_thousand_runs_drain_in_flat_memory(
    request: pytest.FixtureRequest, database: str, most_ms: float
) -> None:
    url = request.getfixturevalue("postgres_url") if database == "postgres" else ""
    command = [sys.executable, "-m", "tests.bench.durable", "--database", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    sys.stdout.write(f"{database}: {found}\n")
    assert found["steps"]["ms_a_step"] < most_ms * ROOMY
    grown = found["queue"]["mb_at_the_end"] - found["queue"]["mb_after_a_fifth"]
    assert grown < 40, "memory grows with the runs"
