"""The whole of raysys in a home of its own on free ports, driven through its command line as a user would."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from raysys.laptop import processes
from raysys.settings import Settings
from tests.collector import Collector, collecting

PORT_NAMES = (
    "http",
    "mlflow",
    "ray",
    "ray_dashboard",
    "ray_client",
    "ray_agent",
    "ray_metrics",
    "ray_autoscaler_metrics",
    "ray_dashboard_metrics",
    "haproxy_metrics",
    "haproxy_stats",
    "fallback",
)
PYTHON = sys.executable
ROOT = Path(__file__).parents[2]
RAYSYS = str(Path(PYTHON).parent / "raysys")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let those tests of this folder go first that are marked `early`; all others keep their order."""
    here = Path(__file__).parent
    places = [n for n, item in enumerate(items) if item.path.is_relative_to(here)]
    ours = sorted((items[n] for n in places), key=lambda i: i.get_closest_marker("early") is None)
    for place, item in zip(places, ours, strict=True):
        items[place] = item


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@dataclass
class Home:
    """A home and the settings that its commands get; `run` is the command line."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ports = zip(PORT_NAMES, free_ports(len(PORT_NAMES)), strict=True)
        self.environment = {
            "RAYSYS_HOME": str(self.path),
            **{f"RAYSYS_{name.upper()}_PORT": str(port) for name, port in ports},
            "RAYSYS_TRIAL_CPUS": "1",
            **self.environment,
        }

    @property
    def http_url(self) -> str:
        """Where predictions are served."""
        return f"http://127.0.0.1:{self.environment['RAYSYS_HTTP_PORT']}"

    def run(self, *words: str, code: int | None = 0, timeout: float = 600, stdin: str = "") -> str:
        """Run a command and return its standard output; its exit code has to be `code` unless that is None."""
        done = subprocess.run(
            [RAYSYS, *words],
            env=self.all_environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if code is not None:
            assert done.returncode == code, (
                f"raysys {' '.join(words)}\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout + (done.stderr if code else "")

    def ray(self, *words: str) -> str:
        """Run Ray's own command line against the cluster of this home, with its token."""
        environment = {
            **self.all_environment(),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.path / "ray-token"),
            "RAY_API_SERVER_ADDRESS": self.settings().dashboard_url,
        }
        command = [str(Path(PYTHON).parent / "ray"), *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def json(self, *words: str, code: int | None = 0) -> Any:
        """Run a command with `--json` and return what it printed."""
        return json.loads(self.run(*words, "--json", code=code))

    def wait_until_logged(self, request_id: str) -> None:
        """Return when the log of predictions has the request."""
        processes.wait_until(
            lambda: self.run("lineage", request_id, code=None) != "",  # an error has no output
            f"{request_id} to be logged",
            timeout_seconds=60,
        )

    def all_environment(self) -> dict[str, str]:
        """Return the environment of this test run without another home's settings, and with this home's."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAYSYS_", "RAY_"))}
        return {**kept, **self.environment}

    def settings(self) -> Settings:
        """Return the settings as a command of this home reads them."""
        names = {
            k.removeprefix("RAYSYS_").lower(): json.loads(v) if v.startswith("[") else v
            for k, v in self.environment.items()
            if k.startswith("RAYSYS_")
        }
        return Settings(**names)  # type: ignore[arg-type]

    def client(self) -> httpx.Client:
        """Return an HTTP client of the served predictions."""
        return httpx.Client(base_url=self.http_url, timeout=30)


def install_tutorial(folder: Path) -> None:
    """Put the package that docs/tutorial.md describes into `folder`, as an installer would."""
    page = (ROOT / "docs" / "tutorial.md").read_text()
    module, project = (
        re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "toml")
    )
    assert module
    assert project
    (folder / "bikes.py").write_text(module[1])
    about = tomllib.loads(project[1])["project"]
    installed = folder / f"{about['name']}-{about['version']}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
    )
    lines = [
        f"{name} = {target}" for name, target in about["entry-points"]["raysys.families"].items()
    ]
    (installed / "entry_points.txt").write_text("\n".join(["[raysys.families]", *lines]))


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Give what the home sends its traces to."""
    with collecting() as made:
        yield made


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Home]:
    """Give a running raysys after the demo, with the tutorial's family installed; nothing is left afterwards."""
    packages = tmp_path_factory.mktemp("packages")
    install_tutorial(packages)
    environment = {
        "PYTHONPATH": str(packages),
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.url,
        "RAYSYS_LOG_REQUESTS": "true",
    }
    home = Home(tmp_path_factory.mktemp("home"), environment)
    try:
        home.run("demo", "--trials", "2")
        yield home
    finally:
        home.run("down")
        assert processes.find(home.settings()) == []
