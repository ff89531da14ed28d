"""The registry's translation of what MLflow answers, without a server; tests/ray has a real one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from raysys.errors import Conflict, ModelRefused, NotFound, RaysysError, Unavailable
from raysys.records import PATH_TAG, SHA256_TAG, ModelVersion
from raysys.registry import Registry

DATA = b"the bytes of a model"
SHA = hashlib.sha256(DATA).hexdigest()


def answering(handler: Callable[[httpx.Request], httpx.Response]) -> Registry:
    return Registry("http://user:secret@mlflow:5000", httpx.MockTransport(handler))


def version(**tags: str) -> ModelVersion:
    return ModelVersion(
        family="waves",
        version="3",
        run_id="r",
        sha256=tags.get(SHA256_TAG, ""),
        model_uri="",
        tags=tags,
    )


GOOD = version(**{SHA256_TAG: SHA, PATH_TAG: "model.onnx"})


@pytest.mark.parametrize("error", [httpx.ConnectError("x"), httpx.ReadTimeout("x")])
def test_a_server_that_does_not_answer_is_unavailable_and_the_password_stays_secret(
    error: Exception,
) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise error

    with answering(refuse) as registry:
        assert not registry.healthy()
        with pytest.raises(Unavailable, match="http://mlflow:5000 does not answer") as caught:
            registry.aliases()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (404, "Model Version (name=waves, version=3) not found", NotFound),
        (400, "Registered model alias champion not found.", NotFound),
        (400, "Invalid name", Conflict),
        (500, "boom", Unavailable),
        (503, "later", Unavailable),
    ],
)
def test_refusals_are_translated(status: int, message: str, kind: type[RaysysError]) -> None:
    with (
        answering(lambda _: httpx.Response(status, json={"message": message})) as registry,
        pytest.raises(kind, match=message.split(" ")[0]),
    ):
        registry.set_alias("waves", "champion", "3")


def test_an_answer_that_is_no_json_is_still_told() -> None:
    with (
        answering(lambda _: httpx.Response(502, text="<h1>Bad gateway</h1>")) as registry,
        pytest.raises(Unavailable, match="Bad gateway"),
    ):
        registry.aliases()


def test_more_families_than_a_page_are_all_read() -> None:
    def page(request: httpx.Request) -> httpx.Response:
        second = request.url.params.get("page_token") == "t"
        model = {"name": "b" if second else "a", "aliases": [{"alias": "champion", "version": 2}]}
        more = {} if second else {"next_page_token": "t"}
        return httpx.Response(200, json={"registered_models": [model], **more})

    with answering(page) as registry:
        assert registry.aliases() == {"a": {"champion": "2"}, "b": {"champion": "2"}}


def test_an_empty_registry_has_no_aliases() -> None:
    with answering(lambda _: httpx.Response(200, json={})) as registry:
        assert registry.aliases() == {}
        assert registry.versions("waves") == []


def test_versions_come_newest_first_by_number() -> None:
    rows = [{"name": "waves", "version": v} for v in ("9", "10", "2")]
    with answering(lambda _: httpx.Response(200, json={"model_versions": rows})) as registry:
        assert [v.version for v in registry.versions("waves")] == ["10", "9", "2"]


def test_a_name_cannot_change_the_search() -> None:
    with (
        answering(lambda _: httpx.Response(200, json={})) as registry,
        pytest.raises(NotFound),
    ):
        registry.versions("x' OR name!='")


@pytest.mark.parametrize("tags", [{}, {SHA256_TAG: SHA}, {PATH_TAG: "model.onnx"}])
def test_a_version_that_cannot_be_verified_is_refused(tags: dict[str, str]) -> None:
    with (
        answering(lambda _: httpx.Response(200, content=DATA)) as registry,
        pytest.raises(ModelRefused, match="not registered by raysys"),
    ):
        registry.fetch(version(**tags))


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_file_that_the_server_cannot_read_is_read_from_its_root(
    tmp_path: Path, scheme: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(DATA)

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("get-artifact"):
            return httpx.Response(500, json={"message": "no credentials"})
        return httpx.Response(200, json={"artifact_uri": f"{scheme}{tmp_path}"})

    with answering(handle) as registry:
        assert registry.fetch(GOOD) == DATA
    (tmp_path / "model.onnx").unlink()
    with answering(handle) as registry, pytest.raises(ModelRefused, match="missing"):
        registry.fetch(GOOD)


def test_a_move_is_sent_whole() -> None:
    sent: list[tuple[str, str, object]] = []

    def record(request: httpx.Request) -> httpx.Response:
        sent.append((request.method, request.url.path, json.loads(request.content)))
        return httpx.Response(200, json={})

    with answering(record) as registry:
        registry.set_alias("waves", "champion", "3")
        registry.delete_alias("waves", "champion")
    path = "/api/2.0/mlflow/registered-models/alias"
    alias = {"name": "waves", "alias": "champion"}
    assert sent == [("POST", path, {**alias, "version": "3"}), ("DELETE", path, alias)]
