"""The description of the whole API: the site's routes as FastAPI tells them, and the families' own."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from deployments.feedback import MOST, Truth
from deployments.open_inference import Codec
from raysys.families.base import Family, Series

VERSION = "3.0.3"  # what the bundled Swagger UI can show
REF = "#/components/schemas/{name}"
HOUR = "^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):00Z$"
PROBLEM_REF = {"$ref": "#/components/schemas/Problem"}


class Fault(msgspec.Struct):
    """One wrong field: where it stands, and what is wrong with it."""

    loc: list[str | int]
    reason: str


class Problem(msgspec.Struct):
    """An error as RFC 9457 describes it; `errors` names each wrong field of a request."""

    type: str
    title: str
    status: int
    detail: str
    error: str
    instance: str = ""
    errors: list[Fault] = []


PROBLEMS = {
    400: "The body is not JSON",
    401: "No token, or no key",
    403: "Not the right token or key",
    404: "There is no such thing",
    405: "Not a method of this path",
    408: "The request was not whole in time",
    409: "The state of things forbids it",
    413: "The body is too large",
    415: "Not a media type of this path",
    422: "Fields are wrong; each is named",
    429: "This key asks too often",
    502: "The replica went away while it answered",
    503: "Not now: no model, no replica, too many requests, or a part of the system is away",
    504: "The replica took too long",
}
PREDICT_PROBLEMS = (400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 502, 503, 504)
ADMIN_PROBLEMS = (400, 401, 403, 404, 405, 408, 409, 413, 422, 502, 503, 504)
HEALTH_PROBLEMS = (404, 405, 408, 413, 422, 502, 503, 504)


def document(site: FastAPI, served: list[Family]) -> dict[str, Any]:
    """Return the OpenAPI document of the site and of these families."""
    found = get_openapi(
        title=site.title, version=site.version, openapi_version=VERSION, routes=site.routes
    )
    for path, operations in found["paths"].items():
        for operation in operations.values():
            _describe_problems(path, operation)
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    (_,), said = msgspec.json.schema_components([Truth], ref_template=REF)
    schemas |= said
    for family in served:
        paths, components = _family(family)
        found["paths"] |= paths
        schemas |= components
    (_,), problems = msgspec.json.schema_components([Problem], ref_template=REF)
    schemas |= problems
    found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    told: dict[str, Any] = _for_3_0(found)
    return told


def _describe_problems(path: str, operation: dict[str, Any]) -> None:
    admin = path.startswith("/admin")
    if admin:
        operation["security"] = [{"token": []}]
        operation["parameters"] = [
            p for p in operation.get("parameters", []) if p["name"] != "authorization"
        ]
    operation["responses"].pop("422", None)
    operation["responses"] |= _problems(ADMIN_PROBLEMS if admin else HEALTH_PROBLEMS)


def _problems(statuses: tuple[int, ...]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": PROBLEM_REF}}
    return {str(s): {"description": PROBLEMS[s], "content": content} for s in statuses}


def _family(family: Family) -> tuple[dict[str, Any], dict[str, Any]]:
    (row,), components = msgspec.json.schema_components([family.request], ref_template=REF)
    names = dict.fromkeys((family.route, family.name))
    paths: dict[str, Any] = {f"/predict/{name}": _predict(family, name, row) for name in names}
    for name in names:
        paths |= {f"/feedback/{name}": {"post": _feedback(family, name)}, **_v2(family, name)}
    return paths, components


def _predict(family: Family, name: str, row: dict[str, Any]) -> dict[str, Any]:
    schema = (
        {"anyOf": [row, {"type": "array", "items": row, "minItems": 1}]} if family.many else row
    )
    examples = {"one": {"summary": "One row", "value": family.example}}
    if family.many:
        examples["many"] = {"summary": "Several rows", "value": [family.example, family.example]}
    operation = {
        "tags": ["predict"],
        "summary": family.title,
        "description": f"Answers with {family.unit or 'numbers'}, and the version that answered.",
        "parameters": [_version_parameter("query", required=False), *_truth_parameters(family)],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "examples": examples}},
        },
        "responses": {"200": _ok(_prediction_schema()), **_problems(PREDICT_PROBLEMS)},
    }
    return {
        method: {**operation, "operationId": f"{method}_predict_{name}"}
        for method in ("post", "put")
    }


def _prediction_schema() -> dict[str, Any]:
    model = {
        "type": "object",
        "required": ["name", "version"],
        "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
    }
    return {
        "type": "object",
        "required": ["result", "model", "error"],
        "properties": {
            "result": {"description": "A number, or a list of them"},
            "model": model,
            "error": {"nullable": True, "description": "Always null; errors are problems"},
        },
    }


def _feedback(family: Family, name: str) -> dict[str, Any]:
    one = REF.format(name=Truth.__name__)
    many = {"type": "array", "items": {"$ref": one}, "minItems": 1, "maxItems": MOST}
    example = {"request_id": "4b1e", "value": 1.5}
    counts = {name: {"type": "integer"} for name in ("received", "new", "known")}
    kept = {
        "type": "object",
        "required": ["family", *counts],
        "properties": {"family": {"type": "string"}, **counts},
    }
    return {
        "tags": ["predict"],
        "summary": f"What predictions should have said: {family.title}",
        "description": "It is kept at once and joined with its predictions within the hour; it may "
        "come before they are written, in parts, and again: of what differs the latest counts.",
        "operationId": f"feedback_{name}",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"anyOf": [{"$ref": one}, many]}, "example": example}
            },
        },
        "responses": {"202": _ok(kept), **_problems(PREDICT_PROBLEMS)},
    }


def _v2(family: Family, name: str) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for suffix in ("", "/versions/{version}"):
        base = f"/v2/models/{name}{suffix}"
        kind = "_version" if suffix else ""
        parameters = [_version_parameter("path", required=True)] if suffix else []
        told = [*parameters, *_truth_parameters(family)]
        for verb, summary in (("", "Metadata of the model"), ("/ready", "Whether it can answer")):
            operation = {
                "tags": ["v2"],
                "summary": summary,
                "operationId": f"v2{verb.replace('/', '_')}{kind}_{name}",
                "parameters": parameters,
                "responses": {"200": _ok({"type": "object"}), **_problems(PREDICT_PROBLEMS)},
            }
            paths[base + verb] = {"get": operation}
        paths[f"{base}/infer"] = {"post": _infer(family, f"v2_infer{kind}_{name}", told)}
    return paths


def _infer(family: Family, operation_id: str, parameters: list[Any]) -> dict[str, Any]:
    codec = Codec(family)
    example = {"id": "1", "inputs": codec.example()}
    schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "nullable": True},
            "inputs": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "object", "required": ["name", "shape", "datatype"]},
            },
            "outputs": {
                "type": "array",
                "items": {"type": "object", "required": ["name"]},
                "nullable": True,
            },
        },
    }
    return {
        "tags": ["v2"],
        "summary": f"{family.title}, as tensors",
        "operationId": operation_id,
        "parameters": parameters,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": example}},
        },
        "responses": {"200": _ok({"type": "object"}), **_problems(PREDICT_PROBLEMS)},
    }


def _version_parameter(place: str, *, required: bool) -> dict[str, Any]:
    return {
        "name": "version",
        "in": place,
        "required": required,
        "description": "A version other than the one that serves.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    }


def _truth_parameters(family: Family) -> list[dict[str, Any]]:
    """Return what a caller may say so that a prediction finds its truth."""
    key = {
        "name": "X-Prediction-Key",
        "in": "header",
        "description": "Your own name of the request, by which its truth may be sent to /feedback: "
        "up to 128 characters, the rest is not kept.",
        "schema": {"type": "string"},
    }
    if not isinstance(family.data, Series):
        return [key]
    hour = {
        "name": "at",
        "in": "query",
        "description": "The hour of the last input value; it is looked up when it is not named.",
        "schema": {"type": "string", "pattern": HOUR},
    }
    return [key, hour]


def _ok(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "Done", "content": {"application/json": {"schema": schema}}}


def _for_3_0(value: Any) -> Any:
    """Say the same in OpenAPI 3.0: `nullable`, and no `const`."""
    if isinstance(value, list):
        return [_for_3_0(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _for_3_0(item) for key, item in value.items()}
    options = kept.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        rest = [option for option in options if option != {"type": "null"}]
        kept.pop("anyOf")
        kept |= {**(rest[0] if len(rest) == 1 else {"anyOf": rest}), "nullable": True}
    if "const" in kept:
        kept["enum"] = [kept.pop("const")]
    return kept
