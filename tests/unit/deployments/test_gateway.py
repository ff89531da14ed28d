"""Everything at `/` that names no family, and the way to those that do."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from deployments.gateway import GatewayApp
from raysys.errors import Unavailable
from raysys.tokens import hook_key
from tests.unit.deployments.conftest import LIMIT_BYTES, Served

GOOD = {"weight": 2.5, "count": 3, "kind": "pear"}
TOKEN = {"authorization": "Bearer secret"}


def get(served: Served, path: str, **request: Any) -> httpx.Response:
    return served.through_gateway("GET", path, **request)


def test_it_is_live_without_a_model(modelless: Served) -> None:
    assert get(modelless, "/healthz").status_code == 200
    assert get(modelless, "/v2/health/live").status_code == 200


@pytest.mark.parametrize("path", ["/readyz", "/readyz?family=fruits", "/v2/health/ready"])
def test_it_is_ready_only_with_a_model(modelless: Served, fruits: Served, path: str) -> None:
    assert get(fruits, path).status_code == 200
    refusal = get(modelless, path)
    assert (refusal.status_code, refusal.headers["retry-after"]) == (503, "1")
    assert "fruits" in refusal.json()["detail"]


def test_readiness_tells_the_versions(fruits: Served) -> None:
    assert get(fruits, "/readyz").json() == {"ready": True, "models": {"fruits": "1"}}
    assert get(fruits, "/readyz?family=nobody").status_code == 404


def test_a_family_whose_replicas_are_away_is_not_ready(
    fruits: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> Any:
        raise Unavailable("No replica of fruits answers.")

    monkeypatch.setattr(fruits, "status", away)
    assert "No replica of fruits answers" in get(fruits, "/readyz").json()["detail"]


@pytest.mark.parametrize("path", ["/predict/waves", "/predict/waves_next", "/predict/waves/"])
def test_a_family_answers_under_its_name_and_its_route(waves: Served, path: str) -> None:
    answer = waves.through_gateway("PUT", path, json=[1, 2, 3, 4])
    assert answer.json()["result"] == [2.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize("path", ["/predict/nobody", "/v2/models/nobody/ready"])
def test_an_unknown_family_is_404_and_names_the_known(waves: Served, path: str) -> None:
    answer = get(waves, path)
    assert answer.status_code == 404
    assert "waves, waves_next" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path", ["/nothing", "/predict", "/predict/", "/predict/fruits/x", "/v3", "/docs/assets/x"]
)
def test_unknown_paths_are_problems(fruits: Served, path: str) -> None:
    answer = get(fruits, path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("method", "path"), [("POST", "/healthz"), ("DELETE", "/docs")])
def test_other_methods_are_405(fruits: Served, method: str, path: str) -> None:
    answer = fruits.through_gateway(method, path)
    assert (answer.status_code, answer.json()["status"]) == (405, 405)
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize("path", ["/predict/fruits", "/admin/train/fruits", "/nothing"])
def test_large_bodies_are_413_everywhere(fruits: Served, path: str) -> None:
    answer = fruits.through_gateway("POST", path, content=b" " * (LIMIT_BYTES + 1))
    assert answer.status_code == 413


def test_a_fault_of_ours_is_500_without_its_trace(fruits: Served) -> None:
    class Broken:
        async def forward(self, request: Any) -> Any:
            raise ZeroDivisionError("secret detail")

        status = forward

    app = GatewayApp({"fruits": Broken()}, None, LIMIT_BYTES)  # type: ignore[dict-item]
    answer = asyncio.run(fruits._call("POST", "/predict/fruits", app, json=GOOD))
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_the_documentation_needs_no_network(fruits: Served) -> None:
    page = get(fruits, "/docs").text
    assert "http" not in page.replace("<!doctype html>", "")
    for asset in ("swagger-ui.css", "swagger-ui-bundle.js"):
        assert f"docs/assets/{asset}" in page
        assert get(fruits, f"/docs/assets/{asset}").status_code == 200
    assert "openapi.json" in get(fruits, "/docs/start.js").text


def test_the_openapi_document_has_every_route_and_its_problems(waves: Served) -> None:
    told = get(waves, "/openapi.json").json()
    for path in ("/predict/waves", "/predict/waves_next", "/v2/models/waves/infer", "/readyz"):
        assert path in told["paths"]
    for method in ("put", "post"):
        operation = told["paths"]["/predict/waves_next"][method]
        assert {"200", "400", "413", "415", "422", "503"} <= operation["responses"].keys()
        content = operation["requestBody"]["content"]["application/json"]
        assert content["examples"]["one"]["value"] == waves.family.example
    said = told["paths"]["/feedback/waves"]["post"]
    assert {"202", "401", "422", "503"} <= said["responses"].keys()
    hours = told["paths"]["/predict/waves"]["post"]["parameters"]
    assert {each["name"] for each in hours} == {"version", "X-Prediction-Key", "at"}
    ids = [o["operationId"] for each in told["paths"].values() for o in each.values()]
    assert len(ids) == len(set(ids))


def test_every_reference_of_the_openapi_document_resolves(fruits: Served) -> None:
    told = get(fruits, "/openapi.json").json()

    def references(value: Any) -> Any:
        if isinstance(value, dict):
            yield from ([value["$ref"]] if "$ref" in value else [])
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                yield from references(item)

    found = set(references(told))
    assert "#/components/schemas/Fruit" in found
    schemas = told["components"]["schemas"]
    assert [ref for ref in found if ref.rsplit("/", 1)[1] not in schemas] == []


ADMIN = ["/admin/runs", "/admin/runs/x", "/admin/schedules", "/admin/models"]


@pytest.mark.parametrize("path", ADMIN)
@pytest.mark.parametrize(
    ("header", "status"),
    [(None, 401), ("secret", 401), ("Basic secret", 401), ("Bearer ", 401), ("Bearer no", 403)],
)
def test_admin_wants_its_token(fruits: Served, path: str, header: str | None, status: int) -> None:
    headers = {"authorization": header} if header else {}
    answer = get(fruits, path, headers=headers)
    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "body", "loc"),
    [
        ("/admin/train/fruits", {"trials": 0}, ["trials"]),
        ("/admin/train/fruits", {"trials": "many"}, ["trials"]),
        ("/admin/models/fruits/promote", {}, ["version"]),
        ("/admin/models/fruits/promote", {"version": "x"}, ["version"]),
        ("/admin/crawl/fruits", {"since": "soon"}, ["since"]),
        ("/admin/crawl/fruits", None, ["family"]),
    ],
)
def test_admin_names_what_is_wrong(fruits: Served, path: str, body: Any, loc: list[str]) -> None:
    answer = fruits.through_gateway("POST", path, json=body, headers=TOKEN)
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, loc)


def test_admin_refuses_what_is_not_json(fruits: Served) -> None:
    headers = {**TOKEN, "content-type": "application/json"}
    answer = fruits.through_gateway("POST", "/admin/train/fruits", content=b"{", headers=headers)
    assert answer.status_code == 400


@pytest.mark.parametrize("verb", ["train", "crawl"])
def test_admin_knows_the_families(fruits: Served, verb: str) -> None:
    answer = fruits.through_gateway("POST", f"/admin/{verb}/nobody", headers=TOKEN)
    assert answer.status_code == 404
    assert "fruits" in answer.json()["detail"]


def test_a_moved_alias_is_told_with_the_key_only(waves: Served) -> None:
    key = hook_key(waves.office.settings)
    for path, status in ((f"/hooks/registry/{key}", 204), ("/hooks/registry/guessed", 404)):
        assert waves.through_gateway("POST", path, json={}).status_code == status
