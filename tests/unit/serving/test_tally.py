from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from raysys import metrics
from raysys.records import LoadedVersion
from raysys.serving.tally import BOUNDS, Tally

STATE = LoadedVersion(
    replica="r",
    family="waves",
    version="3",
    sha256="ab" * 32,
    loaded_at=datetime(2026, 1, 1, tzinfo=UTC),
)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What the tally says to raysys.metrics, by function."""
    calls: dict[str, list[Any]] = {}
    for function in ("add", "announce", "gauge", "add_buckets"):

        def note(*args: Any, of: str = function, **labels: str) -> None:
            calls.setdefault(of, []).append((*args, *labels.values()))

        monkeypatch.setattr(metrics, function, note)
    return calls


def test_what_was_counted_is_sent_once(sent: dict[str, list[Any]]) -> None:
    tally = Tally("waves")
    tally.count(200, 0.002)
    tally.count(200, 99.0)
    tally.add_rows("3", 5)
    tally.logged["dropped"] += 1
    tally.flush(STATE, 0, True)
    assert sent["add"] == [
        ("requests", 2, "waves", "200"),
        ("predictions", 5, "waves", "3"),
        ("logged_requests", 1, "waves", "dropped"),
    ]
    name, buckets, seconds, family = sent["add_buckets"][0]
    assert (name, family, seconds, sum(buckets)) == ("request_seconds", "waves", 99.002, 2)
    assert buckets[-1] == 1
    assert len(buckets) == len(BOUNDS) + 1
    sent.clear()
    tally.flush(STATE, 0, True)
    assert "add" not in sent
    assert "announce" not in sent
    assert sum(sent["add_buckets"][0][1]) == 0


def test_a_replica_says_what_it_serves_only_while_it_serves(sent: dict[str, list[Any]]) -> None:
    tally = Tally("waves")
    tally.flush(STATE, 2, False)
    assert ("model_info", 1, "waves", "3", "abababababab") in sent["gauge"]
    assert ("refused_versions", 2, "waves") in sent["gauge"]
    assert ("registry_reachable", 0, "waves") in sent["gauge"]
    sent.clear()
    nothing = LoadedVersion(
        replica="r", family="waves", version="", sha256="", loaded_at=STATE.loaded_at
    )
    tally.flush(nothing, 0, True)
    assert "model_info" not in [name for name, *_ in sent["gauge"]]
    assert ("model_version", 0, "waves") in sent["gauge"]
