"""The registry against a real MLflow server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from raysys.errors import ModelRefused, NotFound
from raysys.registry import Registry
from tests.ray.serving_ground import Mlflow, create_version, register, until

DATA = b"the bytes of a model"


@pytest.fixture(scope="module")
def registry(mlflow: Mlflow) -> Iterator[Registry]:
    with Registry(mlflow.settings.tracking_uri) as registry:
        yield registry


@pytest.fixture(scope="module")
def first(mlflow: Mlflow) -> str:
    return register(mlflow.settings, "apples", DATA)


def test_a_version_is_read_with_its_file(registry: Registry, first: str) -> None:
    version = registry.version("apples", first)
    assert (version.family, version.version, version.aliases) == ("apples", first, [])
    assert version.created_at is not None
    assert registry.fetch(version) == DATA


def test_an_alias_is_set_moved_and_removed(registry: Registry, mlflow: Mlflow, first: str) -> None:
    second = register(mlflow.settings, "apples", DATA)
    registry.set_alias("apples", "champion", first)
    registry.set_alias("apples", "champion", second)
    registry.set_alias("apples", "challenger", first)
    assert registry.aliases()["apples"] == {"champion": second, "challenger": first}
    champion = registry.champion("apples")
    assert champion is not None
    assert (champion.version, champion.aliases) == (second, ["champion"])
    registry.delete_alias("apples", "champion")
    registry.delete_alias("apples", "champion")
    assert registry.champion("apples") is None
    assert registry.aliases()["apples"] == {"challenger": first}


def test_moved_aliases_are_told(registry: Registry, first: str) -> None:
    told: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            told.append({"path": self.path, "entity": body["entity"], "action": body["action"]})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            for path in ("/old", "/new", "/new"):
                registry.tell(f"http://127.0.0.1:{server.server_port}{path}")

            def both_heard() -> bool:
                registry.set_alias("apples", "told", first)
                registry.delete_alias("apples", "told")
                return {each["action"] for each in told} == {"created", "deleted"}

            until(both_heard)  # the server keeps its list of hooks for a second
        finally:
            server.shutdown()
            thread.join()
    assert {each["path"] for each in told} == {"/new"}
    assert {each["entity"] for each in told} == {"model_version_alias"}


def test_what_does_not_exist_is_not_found(registry: Registry, first: str) -> None:
    assert registry.versions("nobody") == []
    assert registry.champion("nobody") is None
    for family, version in (("nobody", "1"), ("apples", "999"), ("apples", "x")):
        with pytest.raises(NotFound):
            registry.version(family, version)
    for family, version in (("nobody", "1"), ("apples", "999")):
        with pytest.raises(NotFound):
            registry.set_alias(family, "champion", version)


def test_another_file_than_the_registered_one_is_refused(
    registry: Registry, mlflow: Mlflow
) -> None:
    version = register(mlflow.settings, "apples", DATA, sha256="0" * 64)
    with pytest.raises(ModelRefused, match="not the one that was registered"):
        registry.fetch(registry.version("apples", version))


def test_a_missing_file_is_refused(registry: Registry, mlflow: Mlflow, first: str) -> None:
    here = registry.version("apples", first)
    source = {"source": f"{here.model_uri}-gone", "run_id": here.run_id}
    with httpx.Client(base_url=mlflow.settings.tracking_uri) as http:
        version = create_version(http, "apples", source, "0" * 64)
    with pytest.raises(ModelRefused, match="missing"):
        registry.fetch(registry.version("apples", version))


def test_hundreds_of_versions_are_one_request(mlflow: Mlflow, first: str) -> None:
    asked: list[str] = []

    class Counting(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            asked.append(request.url.path)
            return super().handle_request(request)

    with Registry(mlflow.settings.tracking_uri, Counting()) as registry:
        here = registry.version("apples", first)
        source = {"source": here.model_uri, "run_id": here.run_id}
        with httpx.Client(base_url=mlflow.settings.tracking_uri) as http:
            http.post("/api/2.0/mlflow/registered-models/create", json={"name": "pears"})
            made = [create_version(http, "pears", source, "0" * 64) for _ in range(200)]
        registry.set_alias("pears", "champion", made[100])
        asked.clear()
        assert registry.aliases()["pears"] == {"champion": made[100]}
        assert len(asked) == 1
        assert [v.version for v in registry.versions("pears")] == made[::-1]


def test_a_server_that_answers_is_healthy(registry: Registry) -> None:
    assert registry.healthy()
