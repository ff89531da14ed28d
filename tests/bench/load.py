"""Load on a URL and what came of it: by wrk where there is one, else by aiohttp in a process of its own."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

SCRIPT = """
wrk.method = "POST"
wrk.body = {body}
wrk.headers["Content-Type"] = "application/json"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\nJSON{{"requests":%d,"seconds":%.6f,"p50_ms":%.4f,"p99_ms":%.4f,' ..
    '"failed":%d,"cut":%d}}\\n', summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, e.status,
    e.connect + e.read + e.write + e.timeout))
end
"""


class Target(NamedTuple):
    """What is asked: a URL and one JSON body."""

    url: str
    body: str


class Load(NamedTuple):
    """What one run of load measured; `failed` are answers other than 2xx, `cut` lost connections."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int
    cut: int

    @property
    def per_second(self) -> float:
        """Answers that were predictions, a second."""
        return (self.requests - self.failed) / self.seconds


def generator() -> str:
    """Return which generator of load this machine has."""
    return "wrk" if shutil.which("wrk") else "aiohttp"


def start(
    target: Target, connections: int, seconds: float, pause_ms: int = 0, niceness: int = 0
) -> subprocess.Popen[str]:
    """Start load, each connection pausing before each request; `finish` waits for its end.

    With a `niceness` the generator takes only CPU that the server leaves, as if it were elsewhere.
    """
    nice = ["nice", "-n", str(niceness)] if niceness else []
    if generator() == "aiohttp":
        words = [target.url, target.body, str(connections), str(seconds), str(pause_ms)]
        command = [*nice, sys.executable, "-m", "tests.bench.flood", *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with tempfile.NamedTemporaryFile("w", suffix=".lua", delete=False) as script:
        script.write(SCRIPT.format(body=json.dumps(target.body)))
        if pause_ms:
            script.write(f"function delay() return {pause_ms} end\n")
    command = [*nice, "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "10s"]
    return subprocess.Popen(
        [*command, "-s", script.name, target.url], stdout=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> Load:
    """Wait for the end of a load and return what it measured."""
    out, _ = process.communicate(timeout=3600)
    if process.args and "-s" in process.args:  # type: ignore[operator]  # always a list here
        arguments: Any = process.args
        Path(arguments[arguments.index("-s") + 1]).unlink(missing_ok=True)
    line = next(line for line in out.splitlines() if line.startswith("JSON"))
    return Load(**json.loads(line.removeprefix("JSON")))


def run(target: Target, connections: int, seconds: float) -> Load:
    """Put load on the target and return what it measured."""
    return finish(start(target, connections, seconds))


def median(loads: list[Load]) -> Load:
    """Return the load in the middle by requests a second, with every failure of all of them."""
    middle = statistics.median_low(load.per_second for load in loads)
    chosen = next(load for load in loads if load.per_second == middle)
    return chosen._replace(
        p99_ms=statistics.median(load.p99_ms for load in loads),
        failed=sum(load.failed for load in loads),
        cut=sum(load.cut for load in loads),
    )
