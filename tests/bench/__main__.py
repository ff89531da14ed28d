"""`python -m tests.bench`: one run of the benchmark; `raysys bench` starts it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from raysys.cli import screen
from tests import postgres
from tests.bench import kills, load, report, suite
from tests.bench.servers import Raysys, machine, raysys

PARTS = ("throughput", "reloads", "overload", "kills", "costs", "durable", "soak")
SILENT: dict[str, Any] = {"prediction_log_per_second": 0, "metrics": False}


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen parts, print and write what they gave."""
    chosen = _parse(arguments)
    plan = suite.QUICK if chosen.quick else suite.WHOLE
    parts = ["soak"] if chosen.soak else [p for p in PARTS if p != "soak"]
    if chosen.parts:
        parts = chosen.parts.split(",")
    plan = plan._replace(soak_seconds=chosen.soak or (180 if chosen.quick else 1800))
    found: dict[str, Any] = {"machine": machine(), "generator": load.generator()}
    with tempfile.TemporaryDirectory(prefix="raysys-bench-") as folder:
        models = Path(folder)
        screen.note("training the models that all servers get")
        # In a process of its own: TensorFlow would stay in this one.
        command = [sys.executable, "-m", "tests.bench.models", str(models)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        with raysys(models) as (server, start):
            found["start"] = {name: round(value, 1) for name, value in start.items()}
            _measure(found, server, models, plan, parts)
    if "durable" in parts:
        found["durable"] = _durable(chosen.quick)
    report.show(found)
    report.write(found, chosen.out)
    screen.note(f"written to {chosen.out}")
    return 1 if "soak" in found and suite.leaks(found["soak"]) else 0


def _measure(
    found: dict[str, Any], server: Raysys, models: Path, plan: suite.Plan, parts: list[str]
) -> None:
    found["model_milliseconds"] = suite.model_milliseconds(models)
    if "throughput" in parts:
        found["throughput"] = suite.throughput(server, models, plan, screen.note)
    if "reloads" in parts:
        screen.note("promoting back and forth under load")
        found["reloads"] = suite.reloads(server, plan)
    if "overload" in parts:
        screen.note("overload")
        found["overload"] = suite.overload(server, plan)
    if "kills" in parts:
        found["kills"] = kills.kills(server, screen.note)
    if "costs" in parts:
        screen.note("with and without log and metrics")
        with raysys(models, **SILENT) as (silent, _):
            found["costs"] = suite.costs(server, silent, plan)
    if "soak" in parts:
        screen.note("soak")
        found["soak"] = suite.soak(server, plan, screen.note)
    names = {
        "replica of insurance": "ServeReplica:insurance",
        "replica of atmos": "ServeReplica:atmos",
        "HAProxy": "haproxy",
    }
    found["memory_megabytes"] = {
        name: sorted(map(round, server.resident_megabytes(title).values()))
        for name, title in names.items()
    }


def _durable(quick: bool) -> dict[str, Any]:
    """Return what steps and queued runs cost, on SQLite and, where it is installed, on PostgreSQL."""
    found: dict[str, Any] = {}
    for name in ("SQLite", *(() if postgres.available() else ("PostgreSQL",))):
        screen.note(f"steps and queued runs on {name}")
        with ExitStack() as opened:
            url = ""
            if name == "PostgreSQL":
                url = opened.enter_context(postgres.Cluster()).create_database()
            found[name] = _apart("tests.bench.durable", url, 100 if quick else 1000)
    return found


def _apart(module: str, url: str, runs: int) -> dict[str, Any]:
    """Measure in a process of its own: its memory is part of the figures."""
    command = [sys.executable, "-m", module, "--database", url, "--runs", str(runs)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="raysys bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--soak", type=float, metavar="SECONDS", help="only the soak, so long")
    parser.add_argument("--parts", help=f"only these, of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of the results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
