"""The manifests render, pass every check that there is, and say what raysys itself says."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import yaml

from kuberay import checks, manifests
from raysys.errors import InvalidInput, NotFound
from raysys.serving.config import serve_config

CRDS = Path(__file__).parents[4] / "shared" / "crds"
OVERLAYS = manifests.overlay_names()

Document = dict[str, Any]


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Document]]:
    return {name: manifests.render(manifests.folder_of(name)) for name in OVERLAYS}


@pytest.fixture(scope="session")
def crds() -> ModuleType:
    file = CRDS / "validate_crd.py"
    if not file.exists():
        pytest.skip(f"the schemas of KubeRay are not at {CRDS}")
    spec = importlib.util.spec_from_file_location("validate_crd", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


def service(documents: list[Document]) -> Document:
    (found,) = of_kind(documents, "RayService")
    return copy.deepcopy(found)


def pods(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    """Yield every Pod template, with the name of what it belongs to."""
    for document in documents:
        if document["kind"] in ("Deployment", "StatefulSet"):
            yield document["metadata"]["name"], document["spec"]["template"]
    cluster = service(documents)["spec"]["rayClusterConfig"]
    yield "head", cluster["headGroupSpec"]["template"]
    for group in cluster["workerGroupSpecs"]:
        yield group["groupName"], group["template"]


def test_the_overlays_are_those_that_the_documentation_names() -> None:
    assert OVERLAYS == ["dev", "gpu", "production", "redis"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_passes_every_check(rendered: dict[str, list[Document]], overlay: str) -> None:
    checks.check(rendered[overlay])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_custom_objects_fit_the_schemas_of_kuberay(
    rendered: dict[str, list[Document]], crds: ModuleType, overlay: str
) -> None:
    assert crds.errors(service(rendered[overlay])) == []


def test_the_models_know_every_field_of_the_schemas(crds: ModuleType) -> None:
    from kuberay import specs

    for kind, model in specs.MODELS.items():
        schema, _ = crds.validator(kind)
        assert differing(schema["properties"]["spec"], model.model_fields["spec"].annotation) == []


def differing(schema: Document, annotation: Any, path: str = "spec") -> list[str]:
    """Return the paths whose fields differ between a schema and a model of ours; models of Kubernetes are not ours."""
    ours = our_model(annotation)
    if ours is None:
        return []
    properties = (schema.get("items") or schema).get("properties", {})
    fields = {name: field.annotation for name, field in ours.model_fields.items()}
    different = [f"{path}.{name}" for name in sorted(properties.keys() ^ fields.keys())]
    for name in properties.keys() & fields.keys():
        different += differing(properties[name], fields[name], f"{path}.{name}")
    return different


def our_model(annotation: Any) -> Any:
    from kuberay.specs import Part

    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    return next(filter(None, map(our_model, get_args(annotation))), None)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_service_serves_what_raysys_up_would(
    rendered: dict[str, list[Document]], overlay: str
) -> None:
    (told,) = (
        document["data"]
        for document in of_kind(rendered[overlay], "ConfigMap")
        if document["metadata"]["name"].startswith("raysys-settings")
    )
    settings = manifests.cluster_settings("\n".join(f"{k}={v}" for k, v in told.items()))
    config = yaml.safe_load(service(rendered[overlay])["spec"]["serveConfigV2"])
    assert config == serve_config(settings)


def test_generated_files_are_up_to_date() -> None:
    stale = [path.name for path, text in manifests.generated().items() if path.read_text() != text]
    assert stale == [], "run `raysys kube generate`"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_as_a_restricted_namespace_wants_it(
    rendered: dict[str, list[Document]], overlay: str
) -> None:
    for name, pod in pods(rendered[overlay]):
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert (
                container["resources"]["requests"]["memory"]
                == (container["resources"]["limits"]["memory"])
            ), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_service_becomes_a_setting(rendered: dict[str, list[Document]], overlay: str) -> None:
    # With service links, the Service raysys-mlflow would set RAYSYS_MLFLOW_PORT to tcp://...
    assert all(pod["spec"]["enableServiceLinks"] is False for _, pod in pods(rendered[overlay]))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_node_of_the_cluster_has_the_same_environment(
    rendered: dict[str, list[Document]], overlay: str
) -> None:
    nodes = [p["spec"]["containers"][0] for n, p in pods(rendered[overlay]) if "raysys" not in n]
    assert len(nodes) >= 3
    assert all(node["envFrom"] == nodes[0]["envFrom"] for node in nodes)
    assert all(node["env"] == nodes[0]["env"] for node in nodes)
    names = {d["metadata"]["name"] for d in of_kind(rendered[overlay], "ConfigMap")}
    assert {source["configMapRef"]["name"] for source in nodes[0]["envFrom"]} <= names


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_references_only(rendered: dict[str, list[Document]], overlay: str) -> None:
    if overlay != "dev":
        assert of_kind(rendered[overlay], "Secret") == []
    for _, pod in pods(rendered[overlay]):
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            for variable in container.get("env", ()):
                secret = any(
                    w in variable["name"] for w in ("TOKEN", "PASSWORD", "KEY", "URL", "URI")
                )
                assert not secret or "secretKeyRef" in variable["valueFrom"], variable["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_has_longer_to_end_than_its_replicas(
    rendered: dict[str, list[Document]], overlay: str
) -> None:
    spec = service(rendered[overlay])["spec"]
    config = yaml.safe_load(spec["serveConfigV2"])
    grace = max(
        d["graceful_shutdown_timeout_s"] for a in config["applications"] for d in a["deployments"]
    )
    for group in spec["rayClusterConfig"]["workerGroupSpecs"]:
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] > max(grace, 35) + 30


def test_another_image_replaces_every_one_of_ours() -> None:
    image = "registry.example.com:5000/team/raysys@sha256:" + "0" * 64
    documents = manifests.render(manifests.folder_of("dev"), image)
    used = {c["image"] for _, pod in pods(documents) for c in pod["spec"]["containers"]}
    assert used == {image, "postgres:18"}


def test_an_overlay_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(NotFound, match="dev, gpu, production, redis"):
        manifests.folder_of("prod")


def test_a_kustomization_that_is_wrong_is_refused_in_kustomizes_words(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [absent.yaml]\n")
    with pytest.raises(InvalidInput, match=r"absent\.yaml"):
        manifests.render(tmp_path)


def test_settings_of_the_cluster_are_not_those_of_this_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAYSYS_HTTP_PORT", "1234")
    assert manifests.cluster_settings("# RAYSYS_SEED=1\nRAYSYS_MAX_REPLICAS=8\n").http_port == 8000


@pytest.mark.parametrize(
    "path", sorted((manifests.HERE / "examples").glob("ray*.yaml")), ids=lambda p: p.stem
)
def test_the_examples_pass_every_check(path: Path, crds: ModuleType) -> None:
    document = yaml.safe_load(path.read_text())
    checks.check([document])
    assert crds.errors(document) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_version_of_ray_is_that_of_the_lock(
    rendered: dict[str, list[Document]], overlay: str
) -> None:
    lock = (manifests.HERE / "requirements.lock").read_text()
    version = service(rendered[overlay])["spec"]["rayClusterConfig"]["rayVersion"]
    assert f"\nray[default,serve,tune]=={version} " in lock or f"\nray=={version} " in lock


def test_a_kustomization_that_people_apply_themselves_renders_with_their_kubectl() -> None:
    # What `kubectl apply -k` makes is what `raysys kube render` makes, whichever kubectl there is.
    import shutil
    import subprocess

    other = shutil.which("kubectl", path="/usr/local/bin:/usr/bin:/bin")
    if other is None:
        pytest.skip("there is no kubectl but the one that is installed with raysys")
    folder = manifests.folder_of("production")
    done = subprocess.run([other, "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [d for d in yaml.safe_load_all(done.stdout) if d] == manifests.render(folder)
