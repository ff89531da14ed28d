"""What the benchmark measures, part by part: throughput, model time, reloads, overload, soak."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np

from raysys import families
from raysys.serving.loader import load as load_model
from tests.bench import load
from tests.bench.load import Load, Target
from tests.bench.servers import Raysys, uvicorn

Notify = Callable[[str], None]


class Plan(NamedTuple):
    """How long and how often things are measured."""

    seconds: float
    runs: int
    connections: tuple[int, ...]
    promotions: int
    overload_seconds: float
    soak_seconds: float = 0.0


QUICK = Plan(3, 2, (8, 32), 10, 10)
WHOLE = Plan(6, 3, (1, 8, 32, 128), 50, 60)
RIVALS = {
    "insurance": {
        "FastAPI, 1 worker": ("insurance", 1),
        "FastAPI, 3 workers": ("insurance", 3),
    },
    "atmos": {
        "FastAPI, keras.predict": ("atmos_predict", 1),
        "FastAPI, tf.function": ("atmos_function", 1),
    },
}
OURS = "raysys"
HALF_CONNECTIONS = 8
CROWD_NICENESS = 10  # ten times too many callers are not on the server's machine
TURN_SECONDS = 1.0  # between two promotions
STREAK = 12  # answers in a row: with several replicas one may swap before another


def throughput(
    server: Raysys, models: Path, plan: Plan, notify: Notify
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return, by family, connections and server, the median of several runs, taken in turns."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for family, rivals in RIVALS.items():
        with ExitStack() as running:
            targets = {OURS: server.target(family)}
            for name, (application, workers) in rivals.items():
                notify(f"starting {name}")
                plain = uvicorn(application, workers, models, family)
                targets[name] = running.enter_context(plain)
            found[family] = {}
            for connections in plan.connections:
                notify(f"{family} at {connections} connections")
                found[family][str(connections)] = _in_turns(targets, connections, plan)
    return found


def _in_turns(targets: dict[str, Target], connections: int, plan: Plan) -> dict[str, Any]:
    runs: dict[str, list[Load]] = {name: [] for name in targets}
    for _ in range(plan.runs):
        for name, target in targets.items():
            load.run(target, connections, 1)  # warm-up
            runs[name].append(load.run(target, connections, plan.seconds))
    medians = {name: load.median(loads) for name, loads in runs.items()}
    ours = medians[OURS].per_second
    return {
        name: {
            **each._asdict(),
            "per_second": round(each.per_second, 1),
            "times": round(ours / each.per_second, 2) if each.per_second else None,
        }
        for name, each in medians.items()
    }


def model_milliseconds(models: Path) -> dict[str, float]:
    """Return the time of one row in the loaded model, without HTTP: the median of a thousand."""
    import hashlib

    found = {}
    for family in map(families.get, RIVALS):
        data = (models / f"{family.name}.onnx").read_bytes()
        model = load_model(family, "1", hashlib.sha256(data).hexdigest(), data)
        row = np.ascontiguousarray(_row(family))
        times = []
        for _ in range(1000):
            started = time.perf_counter()
            model.run(row)
            times.append(time.perf_counter() - started)
        found[family.name] = round(statistics.median(times) * 1e3, 4)
    return found


def _row(family: Any) -> Any:
    from raysys.serving.loader import example_rows

    return example_rows(family)[:1]


def reloads(server: Raysys, plan: Plan) -> dict[str, Any]:
    """Move the champion back and forth under load; return failures, delays and latency beside calm."""
    target = server.target("insurance")
    loads, delays, wrong = [], [], 0
    with httpx.Client() as http:
        # Calm first, asked as often: only the promotions differ.
        for promoting in (False, True):
            pressure = load.start(target, 32, plan.promotions * TURN_SECONDS + 3)
            for turn in range(1, plan.promotions + 1):
                began = time.monotonic()
                version = server.versions["insurance"][turn % 2 if promoting else 0]
                if promoting:
                    server.registry.set_alias("insurance", "champion", version)
                delays.append(_seconds_until_all_serve(server, http, version))
                wrong += sum(_served(http, target) != version for _ in range(20))
                time.sleep(max(0.0, began + TURN_SECONDS - time.monotonic()))
            loads.append(load.finish(pressure))
    calm, busy = loads
    delays = delays[plan.promotions :]
    return {
        "promotions": plan.promotions,
        "requests": busy.requests,
        "failed": busy.failed,
        "cut": busy.cut,
        "wrong_versions": wrong,
        "median_seconds": round(statistics.median(delays), 3),
        "most_seconds": round(max(delays), 3),
        "p99_ms": busy.p99_ms,
        "calm_p99_ms": calm.p99_ms,
    }


def _seconds_until_all_serve(server: Raysys, http: httpx.Client, version: str) -> float:
    """Return when the answers of `version` began that no other interrupts: all replicas have swapped."""
    target = server.target("insurance")
    started = began = time.monotonic()
    streak = 0
    while streak < STREAK:
        asked = time.monotonic()
        if _served(http, target) != version:
            streak = 0
        else:
            began = asked if streak == 0 else began
            streak += 1
        if asked - started > 30:
            raise TimeoutError(f"version {version} does not serve after 30 s")
    return began - started


def _served(http: httpx.Client, target: Target) -> str:
    answer = http.post(
        target.url, content=target.body, headers={"content-type": "application/json"}
    )
    return str(answer.json()["model"]["version"]) if answer.is_success else ""


class Probe:
    """A calm caller beside a flood: what it meets is what the admitted callers meet."""

    def __init__(self, target: Target) -> None:
        self.statuses: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.failures: list[float] = []  # when, by the monotonic clock
        self.without_retry_after = 0
        self._target = target
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def p99_ms(self) -> float:
        """Return the latency that 1 of 100 answered requests exceeded."""
        return round(float(np.percentile(self.latencies or [0.0], 99)) * 1e3, 2)

    def _ask(self) -> None:
        headers = {"content-type": "application/json"}
        with httpx.Client(timeout=15) as http:
            while not self._ended.wait(0.002):
                started = time.monotonic()
                try:
                    answer = http.post(self._target.url, content=self._target.body, headers=headers)
                except httpx.TransportError as error:
                    self.statuses[type(error).__name__] += 1
                    self.failures.append(time.monotonic())
                    continue
                self.statuses[str(answer.status_code)] += 1
                if answer.is_success:
                    self.latencies.append(time.monotonic() - started)
                    continue
                self.failures.append(time.monotonic())
                self.without_retry_after += "retry-after" not in answer.headers


def overload(server: Raysys, plan: Plan) -> dict[str, Any]:
    """Ask on ten times as many connections as is sensible; return who was answered, and how fast."""
    target = server.target("insurance")
    load.run(target, HALF_CONNECTIONS, 3)  # warm-up: the calm is not that of a first minute
    with Probe(target) as calm:
        time.sleep(3)
    memory = sum(server.resident_megabytes("ServeReplica:insurance").values())
    with Probe(target) as probe:
        crowd = load.start(target, 640, plan.overload_seconds, niceness=CROWD_NICENESS)
        flood = load.finish(crowd)
    after_memory = sum(server.resident_megabytes("ServeReplica:insurance").values())
    time.sleep(5)
    with Probe(target) as after:
        time.sleep(3)
    return {
        "connections": 640,
        "requests": flood.requests,
        "refused": flood.failed,
        "cut": flood.cut,
        "served_per_second": round(flood.per_second),
        "probe": dict(probe.statuses),
        "probe_without_retry_after": probe.without_retry_after,
        "calm_p99_ms": calm.p99_ms(),
        "overload_p99_ms": probe.p99_ms(),
        "after_p99_ms": after.p99_ms(),
        "replica_megabytes": [round(memory), round(after_memory)],
    }


def costs(server: Raysys, silent: Raysys, plan: Plan) -> dict[str, Any]:
    """Return the throughput with the log of predictions and all metrics, and without, taken in turns."""
    targets = {OURS: server.target("insurance"), "silent": silent.target("insurance")}
    found: dict[str, Any] = {}
    for connections in (8, 32):
        runs: dict[str, list[float]] = {name: [] for name in targets}
        for _ in range(2 * plan.runs + 1):
            for name, target in targets.items():
                load.run(target, connections, 1)  # warm-up
                runs[name].append(load.run(target, connections, plan.seconds).per_second)
        ours, without = (statistics.median(runs[name]) for name in targets)
        found[f"{connections} connections"] = {
            "per_second": round(ours),
            "without": round(without),
            "share_paid": round(1 - ours / without, 4),
        }
    return found


def soak(server: Raysys, plan: Plan, notify: Notify) -> dict[str, Any]:
    """Put half a load on for long, with a reload every minute; return how memory grew."""
    target = server.target("insurance")
    full = load.run(target, HALF_CONNECTIONS, 6)
    # Each connection asks half as often as it could.
    pause_ms = round(HALF_CONNECTIONS / (full.per_second / 2) * 1e3 - full.p50_ms)
    end = time.monotonic() + plan.soak_seconds
    pressure = load.start(target, HALF_CONNECTIONS, plan.soak_seconds, max(1, pause_ms))
    samples: list[dict[str, dict[int, float]]] = []
    turn = 0
    while time.monotonic() < end - 1:
        turn += 1
        server.registry.set_alias("insurance", "champion", server.versions["insurance"][turn % 2])
        time.sleep(max(0.0, min(60.0, end - 1 - time.monotonic())))
        samples.append({name: server.resident_megabytes(name) for name in WATCHED})
        notify(f"minute {turn}: {samples[-1]}")
    busy = load.finish(pressure)
    # The first sixth is warm-up: caches and pools grow to their size.
    first, last = samples[len(samples) // 6], samples[-1]
    growth = {name: _growth(first[name], last[name]) for name in WATCHED}
    return {
        "seconds": plan.soak_seconds,
        "full_per_second": round(full.per_second),
        "per_second": round(busy.per_second),
        "requests": busy.requests,
        "failed": busy.failed,
        "cut": busy.cut,
        "growth": growth,
        "samples": samples,
    }


def _growth(first: dict[int, float], last: dict[int, float]) -> float:
    """Return by what share the process grew most that lived all the time, or else its successor."""
    stayed = first.keys() & last
    if not stayed:  # HAProxy is a new process after each change of replicas
        return round(max(last.values()) / max(first.values()) - 1, 4)
    return max(round(last[pid] / first[pid] - 1, 4) for pid in stayed)


def leaks(soaked: dict[str, Any]) -> bool:
    """Say whether a request failed in a soak, or a process grew by more than a twentieth."""
    grown = any(growth > MOST_GROWTH for growth in soaked["growth"].values())
    return bool(grown or soaked["failed"] or soaked["cut"])


MOST_GROWTH = 0.05
WATCHED = ("ServeReplica:insurance", "haproxy", "ProxyActor", "Host")
