"""Serve configs of the manifests against the schema of the Ray that is installed; no cluster is needed."""

from __future__ import annotations

from typing import Any

import pytest

from kuberay import checks, manifests
from raysys.errors import InvalidInput

# Ray's own, while its schemas are imported.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")


@pytest.mark.parametrize("overlay", manifests.overlay_names())
def test_an_overlay_passes_every_check_with_serves_own_schema(overlay: str) -> None:
    checks.check(manifests.render(manifests.folder_of(overlay)))


DEPLOYMENT = "applications.0.deployments.0"
FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a misspelt key": ({"aplications": []}, "aplications", "is applications meant"),
    "a misspelt key of a deployment": (
        {
            "applications": [
                {"import_path": "a:b", "deployments": [{"name": "M", "max_ongoing_request": 5}]}
            ]
        },
        f"{DEPLOYMENT}.max_ongoing_request",
        "is max_ongoing_requests meant",
    ),
    "a misspelt key of its autoscaling": (
        {
            "applications": [
                {
                    "import_path": "a:b",
                    "deployments": [{"name": "M", "autoscaling_config": {"max_replica": 5}}],
                }
            ]
        },
        f"{DEPLOYMENT}.autoscaling_config.max_replica",
        "is max_replicas meant",
    ),
    "a wrong value": (
        {"applications": [{"import_path": "no-colon"}]},
        "applications.0.import_path",
        "no-colon",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_serve_would_take_without_a_word_is_refused(case: str) -> None:
    config, where, said = FAULTS[case]
    found = {".".join(map(str, f.loc)): f.reason for f in checks.serve_faults(config)}
    reason = next((r for loc, r in found.items() if loc.startswith(where)), f"nothing: {found}")
    assert said in reason


def test_a_fault_inside_a_service_has_the_path_of_both() -> None:
    documents = manifests.render(manifests.folder_of("dev"))
    service = next(d for d in documents if d["kind"] == "RayService")
    service["spec"]["serveConfigV2"] += "\nhttp_option: {}\n"
    with pytest.raises(InvalidInput) as refused:
        checks.check(documents)
    (issue,) = refused.value.issues
    assert issue["loc"] == ["RayService/raysys", "spec", "serveConfigV2", "http_option"]
