"""The database is away under load: no request fails, the log stays small, and what it drops is counted."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import psutil
import pytest
import sqlalchemy as sa

from raysys import db, families
from raysys.laptop import processes
from raysys.registry import Registry
from raysys.serving.prediction_log import FLUSH_SECONDS, LONGEST_PAUSE_SECONDS
from raysys.store.tables import predictions
from tests.e2e.conftest import Home
from tests.e2e.ground import pause
from tests.postgres import Cluster
from tests.ray.serving_ground import register, scaled_model

PER_SECOND = 20
CLIENTS = 3
GROWTH_BYTES = 40 * 2**20
EXAMPLE = families.get("insurance").example
COUNTED = re.compile(r"^ray_raysys_logged_requests_total\{(.*)\} (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def stack(postgres_server: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A running raysys on a PostgreSQL of its own, with one replica of one family."""
    environment = {
        "RAYSYS_FAMILIES": '["insurance"]',
        "RAYSYS_MAX_REPLICAS": "1",
        "RAYSYS_PREDICTION_LOG_PER_SECOND": str(PER_SECOND),
        "RAYSYS_DATABASE_URL": postgres_server.create_database(),
    }
    home = Home(tmp_path_factory.mktemp("log"), environment)
    try:
        home.run("up")
        settings = home.settings()
        version = register(settings, "insurance", scaled_model("insurance", 2.0))
        with Registry(settings.tracking_uri) as registry:
            registry.set_alias("insurance", "champion", version)
        processes.wait_until(lambda: answer(home) == 200, "a prediction", timeout_seconds=60)
        yield home
    finally:
        home.run("down")
        assert processes.find(home.settings()) == []


def answer(home: Home) -> int:
    with home.client() as client:
        return client.post("/predict/insurance", json=EXAMPLE).status_code


@contextmanager
def load(home: Home) -> Iterator[Counter[str]]:
    """Predict without pause, and ask for its health; counts answers by path and status."""
    seen: Counter[str] = Counter()
    ended = threading.Event()

    def ask(path: str, seconds: float) -> None:
        with httpx.Client(base_url=home.http_url, timeout=30) as client:
            while not ended.wait(seconds):
                method, body = ("POST", EXAMPLE) if "predict" in path else ("GET", None)
                try:
                    seen[f"{path} {client.request(method, path, json=body).status_code}"] += 1
                except httpx.TransportError as error:
                    seen[f"{path} {type(error).__name__}"] += 1

    asked = [("/predict/insurance", 0.002)] * CLIENTS + [("/readyz", 1.0), ("/healthz", 1.0)]
    threads = [threading.Thread(target=ask, args=each) for each in asked]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)


def outcomes(home: Home) -> Counter[str]:
    """Return how many requests the log has stored, skipped and dropped, as Prometheus sees it."""
    port = home.environment["RAYSYS_RAY_METRICS_PORT"]
    found: Counter[str] = Counter()
    for labels, value in COUNTED.findall(httpx.get(f"http://127.0.0.1:{port}/metrics").text):
        outcome = re.search(r'outcome="(\w+)"', labels)
        found[outcome[1] if outcome else ""] += int(float(value))
    return found


def replica(home: Home) -> psutil.Process:
    (found,) = (
        process
        for process in processes.find(home.settings())
        if "ServeReplica:insurance" in " ".join(process.cmdline())
    )
    return found


@pytest.mark.timeout(600)
@pytest.mark.slow  # it needs a stack of its own, over PostgreSQL
@pytest.mark.parametrize("seconds", [10.0, 120.0])
def test_nothing_fails_while_the_database_is_away(
    stack: Home, postgres_server: Cluster, seconds: float
) -> None:
    answer(stack)
    before = outcomes(stack)
    with load(stack) as seen:
        pause(5)  # of a warm replica that logs
        process = replica(stack)
        memory = process.memory_info().rss
        postgres_server.go_away()
        started = time.monotonic()
        pause(seconds)
        grown = process.memory_info().rss - memory
        postgres_server.come_back()
        back, away = datetime.now(UTC), time.monotonic() - started
        pause(LONGEST_PAUSE_SECONDS + 5)  # the log asks less often while its database is away
    assert {key.rsplit(" ", 1)[1] for key in seen} == {"200"}, seen
    sent = seen["/predict/insurance 200"]
    assert sent > 100 * seconds / 10
    assert grown < GROWTH_BYTES
    told = accounted(stack, before, sent)
    # Each attempt that failed cost what one second may keep, and no more: that much was held.
    attempts = math.log2(LONGEST_PAUSE_SECONDS / FLUSH_SECONDS) + away / LONGEST_PAUSE_SECONDS + 2
    assert 0 < told["dropped"] <= PER_SECOND * attempts
    assert told["stored"] > 0
    assert told["skipped"] > told["stored"] + told["dropped"]
    assert stored_since(stack, back) > 0


def accounted(home: Home, before: Counter[str], sent: int) -> Counter[str]:
    """Return the outcomes since `before` as soon as they add up to what was sent."""

    def settled() -> bool:
        return (outcomes(home) - before).total() >= sent

    processes.wait_until(settled, "every request to be accounted for", timeout_seconds=60)
    return outcomes(home) - before


def stored_since(home: Home, moment: datetime) -> int:
    """Return how many predictions were made and stored since then."""
    engine = db.open_engine(home.settings().database)
    query = sa.select(sa.func.count()).where(predictions.c.at > moment)
    with db.reading(engine) as connection:
        count = connection.execute(query).scalar_one()
    engine.dispose()
    return int(count)
