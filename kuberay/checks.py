"""Whether manifests are right, found out without a cluster: kinds, fields, types, KubeRay's rules, Serve's config."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import yaml

from kuberay import rules
from kuberay.keys import Fault, unknown
from raysys.errors import InvalidInput

Document = dict[str, Any]

# Of the Prometheus operator; its own webhook checks them.
FOREIGN_GROUPS = ("monitoring.coreos.com/",)


def check(documents: Iterable[Document]) -> None:
    """Raise InvalidInput that names every fault of every document, by kind, name and path."""
    issues = [
        {"loc": [_title(document), *fault.loc], "reason": fault.reason}
        for document in documents
        for fault in faults(document)
    ]
    if issues:
        raise InvalidInput(f"The manifests have {len(issues)} faults.", issues=issues)


def faults(document: Document) -> list[Fault]:
    """Return what is wrong with one document."""
    from kuberay.specs import API_VERSION

    if not isinstance(document, dict) or not {"apiVersion", "kind"} <= document.keys():
        return [Fault((), "is no object of Kubernetes: it has no apiVersion or no kind")]
    if document["apiVersion"].startswith(FOREIGN_GROUPS):
        return []
    model = _model(document["apiVersion"], document["kind"])
    if model is None:
        return [Fault(("kind",), f"there is no {document['kind']} in {document['apiVersion']}")]
    found = [*unknown(model, document), *_invalid(model, document)]
    if not found and document["apiVersion"] == API_VERSION:
        found = [*rules.faults(document)] or [*_serve(document)]
    return found


def _title(document: Document) -> str:
    metadata = document.get("metadata") if isinstance(document, dict) else None
    return f"{document.get('kind', '?')}/{(metadata or {}).get('name', '?')}"


def _model(version: str, kind: str) -> Any:
    from kubernetes.client import models

    from kuberay.specs import API_VERSION, MODELS

    if version == API_VERSION:
        return MODELS.get(kind)
    short = version.rpartition("/")[2]
    return getattr(models, short[0].upper() + short[1:] + kind, None)


def _invalid(model: Any, document: Document) -> Iterator[Fault]:
    from pydantic import ValidationError

    try:
        model.model_validate(document)
    except ValidationError as error:
        for fault in error.errors():
            if fault["type"] != "extra_forbidden":  # `unknown` says it better
                yield Fault(tuple(fault["loc"]), fault["msg"])


# -- Serve's config ------------------------------------------------------------------------------


def _serve(document: Document) -> Iterator[Fault]:
    text = document["spec"].get("serveConfigV2")
    if document["kind"] != "RayService" or not text:
        return
    at = ("spec", "serveConfigV2")
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        yield Fault(at, f"is not YAML: {error}")
        return
    yield from (Fault((*at, *fault.loc), fault.reason) for fault in serve_faults(config))


def serve_faults(config: Any) -> list[Fault]:
    """Return what is wrong with a Serve config, by the schema of the Ray that is installed.

    Serve itself takes a misspelt key without a word.
    """
    schema = _serve_schema()
    return [*unknown(schema, config), *_invalid(schema, config)]


@cache
def _serve_schema() -> Any:
    from ray.serve.schema import ServeDeploySchema

    return ServeDeploySchema
