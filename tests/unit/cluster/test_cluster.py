from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from raysys import cluster
from raysys.errors import Unavailable, WorkflowError
from raysys.settings import Settings


@pytest.mark.parametrize("target", ["no.such.module:x", "raysys.cluster:nothing"])
def test_what_cannot_be_imported_is_named(target: str) -> None:
    with pytest.raises(WorkflowError, match=f"{target} cannot be imported"):
        cluster.load(target)


def test_host_builds_its_object_from_an_import_path() -> None:
    host = cluster.Host("fractions:Fraction", (3, 4))
    assert host.call("limit_denominator", (2,), {}) == 1


def test_cluster_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(**_: object) -> None:
        raise ConnectionError("nobody listens")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(Unavailable, match="Start one with `raysys up`"):
        cluster.connect(Settings(ray_address="127.0.0.1:1"))


def test_work_that_gives_way_takes_its_threads_along_and_no_other() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def work() -> None:
        cluster.give_way()
        with ThreadPoolExecutor(1) as inner:
            seen.append(inner.submit(niceness).result())

    seen: list[int] = []
    before = niceness()
    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert seen == [max(cluster.BATCH_NICENESS, before)]
    assert niceness() == before
