"""One Ray cluster of this machine for all tests of the folder: free ports, a short folder, its own database."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysys.settings import Settings
from tests.ray.serving_ground import Mlflow, serving_environment

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    # Ray's socket paths hold at most 107 characters, so pytest's own long folders will not do.
    folder = Path(tempfile.mkdtemp(prefix="rs", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster(home: Path) -> Iterator[Settings]:
    """A cluster of 4 CPUs whose processes see the same settings as the test."""
    import ray

    set_for_session = {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAYSYS_HOME": str(home / "home"),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]),
        **serving_environment(home / "home"),
    }
    before = {key: os.environ.get(key) for key in set_for_session}
    os.environ.update(set_for_session)
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        _temp_dir=str(home / "r"),
        namespace="raysys",
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield Settings()
    ray.shutdown()
    for key, value in before.items():
        if value is None:
            os.environ.pop(key)
        else:
            os.environ[key] = value


@pytest.fixture(scope="session")
def mlflow(cluster: Settings, home: Path) -> Iterator[Mlflow]:
    """An MLflow server at the address that the cluster's processes know."""
    server = Mlflow(cluster, home / "mlflow")
    server.start()
    yield server
    server.stop()
