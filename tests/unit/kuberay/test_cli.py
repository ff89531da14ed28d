"""`raysys kube` as people type it: what it prints, refuses and answers with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kuberay import manifests
from raysys import cli
from tests.kube_api import TOKEN, KubeApi

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("RAYSYS_HOME", str(tmp_path / "home"))

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["raysys", "kube", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KubeApi]:
    """A cluster that the kubeconfig of the environment names."""
    file = tmp_path / "kubeconfig"
    with KubeApi() as server:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": server.url}}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        file.write_text(yaml.safe_dump(config))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
        yield server


def applied(run: Run) -> None:
    assert run("apply", "dev", "--image", "registry.example.com/raysys:2") == 0


def test_an_overlay_is_printed_as_it_would_be_applied(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("render", "dev", "--image", "registry.example.com/raysys:2") == 0
    documents = list(yaml.load_all(capsys.readouterr().out, Loader=yaml.CSafeLoader))
    assert documents == manifests.render(
        manifests.folder_of("dev"), "registry.example.com/raysys:2"
    )


FAULTS = {
    "upgradeStrategy: {type: BlueGreen}": ("spec.upgradeStrategy.type", "NewCluster"),
    "serveConfigv2: x": ("spec.serveConfigv2", "is serveConfigV2 meant"),
    "rayClusterConfig: {authOptions: {mode: null}}": ("authOptions.mode", "leave the cluster open"),
}


@pytest.mark.parametrize("spec", FAULTS)
def test_a_fault_of_an_overlay_is_refused_with_path_and_reason(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path, spec: str
) -> None:
    patch = (
        f"{{apiVersion: ray.io/v1, kind: RayService, metadata: {{name: raysys}}, spec: {{{spec}}}}}"
    )
    overlay = kustomization(tmp_path, patch)
    where, why = FAULTS[spec]
    assert run("render", overlay) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"RayService/raysys.spec.{where.removeprefix('spec.')}" in said or where in said
    assert why in said


def test_a_name_over_the_limit_is_refused(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("render", kustomization(tmp_path, suffix="-" + "x" * 50)) == 1
    assert "metadata.name: has 57 characters; a RayService may have 47" in capsys.readouterr().err


def kustomization(folder: Path, patch: str = "", suffix: str = "") -> str:
    """Write a kustomization over a copy of the overlay dev, and return its folder."""
    import shutil

    for name in ("base", "overlays", "monitoring"):
        shutil.copytree(manifests.HERE / name, folder / name)
    mine = folder / "overlays" / "mine"
    mine.mkdir()
    content: dict[str, Any] = {"resources": ["../dev"]}
    if patch:
        content["patches"] = [{"patch": patch, "target": {"kind": "RayService"}}]
    if suffix:
        content["nameSuffix"] = suffix
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return str(mine)


def test_an_overlay_is_applied_shown_and_deleted(
    run: Run, server: KubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run("apply", "dev", "--dry-run") == 1
    )  # its namespace is not there yet: the server says so
    applied(run)
    assert "RayService/raysys applied" in capsys.readouterr().out
    assert run("diff", "dev", "--image", "registry.example.com/raysys:2") == 0
    assert run("diff", "dev", "--image", "registry.example.com/raysys:3") == 1
    assert "+            image: registry.example.com/raysys:3" in capsys.readouterr().out
    assert run("delete", "dev") == 0
    kept = {key[1] for key in server.store.objects}
    assert kept == {"namespaces", "persistentvolumeclaims"}


def test_a_status_says_what_is_ready(
    run: Run, server: KubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("status") == 1
    assert "not found" in capsys.readouterr().err
    applied(run)
    assert run("status") == 1
    conditions = [{"type": "Ready", "status": "True"}]
    applications = {"insurance": {"status": "RUNNING"}}
    active = {"rayClusterName": "raysys-abc", "applicationStatuses": applications}
    server.set_status("RayService", "raysys", conditions=conditions, activeServiceStatus=active)
    capsys.readouterr()
    assert run("status", "--json") == 0
    state = json.loads(capsys.readouterr().out)
    assert state["ready"] is True
    assert state["applications"] == {"insurance": "RUNNING"}


def test_a_command_is_submitted_to_the_active_cluster(
    run: Run, server: KubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    applied(run)
    assert run("submit", "--", "python", "-m", "workflows.train", "insurance", "--trials", "2") == 1
    assert "no active cluster" in " ".join(capsys.readouterr().err.split())
    server.set_status("RayService", "raysys", activeServiceStatus={"rayClusterName": "raysys-abc"})
    assert run("submit", "--", "python", "-m", "workflows.train", "insurance", "--trials", "2") == 0
    name = capsys.readouterr().out.strip()
    spec = server.object("RayJob", name)["spec"]
    assert spec["entrypoint"] == "python -m workflows.train insurance --trials 2"
    assert spec["clusterSelector"] == {"ray.io/cluster": "raysys-abc"}
    container = spec["submitterPodTemplate"]["spec"]["containers"][0]
    assert container["image"] == "registry.example.com/raysys:2"


def test_a_submitted_command_passes_the_checks() -> None:
    from kuberay import checks, rollout

    checks.check([rollout.job("raysys-1", "raysys-abc", ["true"], "raysys:1")])


def test_logs_of_a_pool_are_printed(
    run: Run, server: KubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    applied(run)
    metadata = {"name": "head-1", "namespace": "raysys", "labels": {"raysys.io/pool": "head"}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    server.store.put(("v1", "pods", "raysys", "head-1"), pod, "ADDED")
    server.logs["head-1"] = ["first", "[second]"]
    capsys.readouterr()
    assert run("logs", "head") == 0
    assert capsys.readouterr().out.splitlines() == ["head-1: first", "head-1: [second]"]
    assert run("logs", "gpus") == 2


def test_the_command_line_lists_kube_without_importing_it() -> None:
    code = "import sys, raysys.cli; print(sorted({'kuberay', 'kubernetes', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
