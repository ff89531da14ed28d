"""The watcher over a registry that a test plays by hand."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from raysys.errors import Conflict, ModelRefused, NotFound, Unavailable
from raysys.records import LoadedVersion, ModelVersion
from raysys.registry import ROLLOUT_TAG, Registered
from raysys.serving import watcher as module
from raysys.serving.rollout import Rollout, Tried
from raysys.serving.watcher import Watcher
from raysys.settings import Settings
from raysys.tokens import hook_key

NOW = datetime(2026, 3, 15, tzinfo=UTC)


class HandRegistry:
    """A registry of one family whose aliases and files a test sets."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"1": b"one", "2": b"two"}
        self.table: dict[str, dict[str, str]] = {"waves": {"champion": "1"}}
        self.tags: dict[str, str] = {}
        self.down = False
        self.downloads: list[str] = []
        self.polled = threading.Event()
        self.told: list[str] = []

    def tell(self, url: str) -> None:
        self.told.append(url)
        raise Conflict("MLflow posts to public addresses only.")

    def families(self) -> dict[str, Registered]:
        self.polled.set()
        if self.down:
            raise Unavailable("MLflow is down.")
        return {
            name: Registered(dict(found), dict(self.tags)) for name, found in self.table.items()
        }

    def version(self, family: str, version: str) -> ModelVersion:
        if version not in self.files:
            raise NotFound(f"no {version}")
        sha = hashlib.sha256(self.files[version]).hexdigest()
        return ModelVersion(family=family, version=version, run_id="", sha256=sha, model_uri="")

    def fetch(self, version: ModelVersion) -> bytes:
        self.downloads.append(version.version)
        if self.files[version.version] == b"missing":
            raise ModelRefused("its file is missing")
        return self.files[version.version]


def state(replica: str = "r1", version: str = "") -> LoadedVersion:
    return LoadedVersion(replica=replica, family="waves", version=version, sha256="", loaded_at=NOW)


@pytest.fixture
def registry() -> HandRegistry:
    return HandRegistry()


@pytest.fixture
def make(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, registry: HandRegistry
) -> Callable[[], Any]:
    monkeypatch.setenv("RAYSYS_HOME", str(tmp_path))
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "FIRST_POLL_SECONDS", 5.0)
    return lambda: Watcher(registry, lambda data: data)  # type: ignore[arg-type]


def test_a_replica_that_knows_nothing_is_told_the_champion(make: Callable[[], Any]) -> None:
    version, sha256, data = make().next(state(), None, 0)
    assert (version, data) == ("1", b"one")
    assert sha256 == hashlib.sha256(b"one").hexdigest()


def test_a_replica_that_knows_the_champion_waits(make: Callable[[], Any]) -> None:
    assert make().next(state(), "1", 0.05) is None


def test_all_waiting_replicas_are_told_of_a_move_and_it_is_fetched_once(
    make: Callable[[], Any], registry: HandRegistry
) -> None:
    watcher, told = make(), []
    threads = [
        threading.Thread(target=lambda: told.append(watcher.next(state(), "1", 10)[0]))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    registry.table = {"waves": {"champion": "2"}}
    for thread in threads:
        thread.join(10)
    assert told == ["2"] * 5
    assert registry.downloads.count("2") == 1


def test_a_version_without_its_file_is_not_offered_and_is_told(
    make: Callable[[], Any], registry: HandRegistry
) -> None:
    registry.files["3"] = b"missing"
    registry.table = {"waves": {"champion": "3"}}
    watcher = make()
    assert watcher.next(state(), "1", 0.05) is None
    assert watcher.next(state(), "1", 0.05) is None
    assert registry.downloads == ["3"]
    assert watcher.state().families[0].refused == "its file is missing"
    registry.table = {"waves": {"champion": "2"}}
    assert watcher.next(state(), "1", 10)[0] == "2"
    assert watcher.state().families[0].refused is None


def test_before_the_registry_was_reached_it_is_unavailable(
    make: Callable[[], Any], registry: HandRegistry
) -> None:
    registry.down = True
    with pytest.raises(Unavailable, match="MLflow is down"):
        make().next(state(), None, 0)


def test_it_goes_on_when_the_registry_is_back(
    make: Callable[[], Any], registry: HandRegistry
) -> None:
    watcher = make()
    assert watcher.next(state(), None, 0)[0] == "1"
    registry.down = True
    registry.polled.clear()
    assert registry.polled.wait(10)
    registry.table, registry.down = {"waves": {"champion": "2"}}, False
    assert watcher.next(state(), "1", 10)[0] == "2"


def test_the_table_tells_what_each_replica_serves(make: Callable[[], Any]) -> None:
    watcher = make()
    watcher.next(state("r2", "1"), "1", 0)
    watcher.next(state("r1"), "1", 0)
    watcher.next(state("r1", "1"), "1", 0)
    assert [(s.replica, s.version) for s in watcher.table()] == [("r1", "1"), ("r2", "1")]


def test_silent_replicas_are_forgotten(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = make()
    watcher.next(state("r1", "1"), "1", 0)
    monkeypatch.setattr(module, "FORGET_SECONDS", -1.0)
    assert watcher.table() == []


def test_a_family_without_a_champion_has_no_offer(
    make: Callable[[], Any], registry: HandRegistry
) -> None:
    registry.table = {"waves": {"challenger": "1"}}
    assert make().next(state(), None, 0) is None


def test_any_version_may_be_asked_for(make: Callable[[], Any]) -> None:
    watcher = make()
    assert watcher.version("waves", "2")[2] == b"two"
    with pytest.raises(NotFound):
        watcher.version("waves", "9")


def test_a_replica_is_told_of_a_trial_and_its_counts_are_summed(
    make: Callable[[], Any], registry: HandRegistry
) -> None:
    watcher = make()
    assert watcher.trial("r1", "waves", None, None, 0) is None
    rollout = Rollout(id="t1", version="2", percent=10)
    registry.tags[ROLLOUT_TAG] = msgspec.json.encode(rollout).decode()
    registry.table["waves"]["challenger"] = "2"
    told, _, data = watcher.trial("r1", "waves", None, None, 5)
    assert (told, data) == (rollout, b"two")
    for replica, requests in (("r1", 3), ("r2", 4), ("r1", 5)):
        assert watcher.trial(replica, "waves", "t1", Tried(requests=requests), 0) is None
    assert watcher.tried("waves", "t1").requests == 9
    assert watcher.tried("waves", "another") is None


def test_the_end_of_a_trial_is_told(make: Callable[[], Any], registry: HandRegistry) -> None:
    rollout = Rollout(id="t1", version="2", percent=10)
    registry.tags[ROLLOUT_TAG] = msgspec.json.encode(rollout).decode()
    registry.table["waves"]["challenger"] = "2"
    watcher = make()
    watcher.trial("r1", "waves", None, None, 5)
    del registry.table["waves"]["challenger"]
    assert watcher.trial("r1", "waves", "t1", Tried(), 5) == (None, "", "")


def test_a_challenger_without_a_file_is_told_with_the_reason(
    make: Callable[[], Any], registry: HandRegistry
) -> None:
    registry.files["2"] = b"missing"
    rollout = Rollout(id="t1", version="2", percent=10)
    registry.tags[ROLLOUT_TAG] = msgspec.json.encode(rollout).decode()
    registry.table["waves"]["challenger"] = "2"
    told, sha256, reason = make().trial("r1", "waves", None, None, 5)
    assert (told, sha256, reason) == (rollout, "", "its file is missing")


def test_it_asks_once_to_be_told_of_moves_and_goes_on_when_that_is_refused(
    make: Callable[[], Any], registry: HandRegistry, tmp_path: Path
) -> None:
    watcher = make()
    registry.table = {"waves": {"champion": "2"}}
    assert watcher.next(state(), "1", 10)[0] == "2"
    key = hook_key(Settings(home=tmp_path))
    assert registry.told == [f"http://127.0.0.1:8000/hooks/registry/{key}"]
    assert watcher.state().reachable


def test_it_takes_the_calls_of_every_replica_that_may_be(tmp_path: Path) -> None:
    few = Settings(home=tmp_path, families=("atmos",), max_replicas=2)
    many = Settings(home=tmp_path, families=("atmos", "insurance"), max_replicas=40)
    assert 2 * 2 < module.calls_at_once(few) < 64
    assert module.calls_at_once(many) > 2 * 2 * 40
