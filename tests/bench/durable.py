"""What a step costs, and how a thousand queued runs drain: the engine alone, without Ray.

python -m tests.bench.durable [--database URL] [--steps 500] [--runs 1000]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from raysys import db, durable, log
from raysys.durable import Client
from raysys.durable.engine import Engine
from raysys.settings import Settings
from tests.unit.durable import flows

WARM_STEPS = 20
SECONDS = 600.0
MEGABYTE = 2**20


def step_cost(settings: Settings, steps: int) -> dict[str, float]:
    """Return the milliseconds of one step of a run of `steps` steps that do nothing."""
    with Engine(settings), Client(settings) as client:
        client.output(client.start("counting", WARM_STEPS, 0.0), SECONDS)
        run_id = client.start("counting", steps, 0.0)
        client.output(run_id, SECONDS)
        run = client.run(run_id)
    assert run.started_at is not None
    assert run.ended_at is not None
    seconds = (run.ended_at - run.started_at).total_seconds()
    return {"steps": steps, "ms_a_step": round(1000 * seconds / steps, 2)}


def drain(settings: Settings, runs: int) -> dict[str, float]:
    """Return how long `runs` queued runs of one step take, their CPU, and how memory grows with them."""
    process = psutil.Process()
    with Client(settings) as client:
        ids = [client.start("adding", number, 1) for number in range(runs)]
        began, worked = time.monotonic(), time.process_time()
        memory: list[float] = []
        with Engine(settings):
            for done, run_id in enumerate(ids, start=1):
                client.wait(run_id, SECONDS)
                if done % max(1, runs // 10) == 0:
                    flows.calls.clear()
                    memory.append(process.memory_info().rss / MEGABYTE)
            seconds = time.monotonic() - began
            cpu = time.process_time() - worked
        assert all(client.run(run_id).status == "SUCCESSFUL" for run_id in ids[:: runs // 20])
    return {
        "runs": runs,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "mb_after_a_fifth": round(memory[1], 1),
        "mb_at_the_end": round(memory[-1], 1),
    }


def measure(database_url: str, steps: int, runs: int) -> dict[str, Any]:
    """Return both figures on a database, a new SQLite file when `database_url` is empty."""
    with tempfile.TemporaryDirectory(prefix="raysys-bench-") as folder:
        settings = Settings(home=Path(folder), database_url=database_url, log_level="WARNING")
        log.configure(settings)
        db.migrate(settings)
        durable.migrate(settings)
        found = {"steps": step_cost(settings, steps)} if steps else {}
        return {**found, "queue": drain(settings, runs)} if runs else found


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", default="", help="a new SQLite file when empty")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--runs", type=int, default=1000)
    given = parser.parse_args()
    json.dump(measure(given.database, given.steps, given.runs), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
