"""The config that Serve is given, against Serve's own schema."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from raysys import families
from raysys.serving import standby
from raysys.serving.config import MIDDLEWARES, serve_config, serve_environment
from raysys.settings import Settings

# Ray Serve's own models warn when they are imported.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")


@pytest.fixture
def plain(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_serve_accepts_the_config_and_keeps_every_key(plain: Settings) -> None:
    from ray.serve.schema import ServeDeploySchema

    config = serve_config(plain)
    kept = ServeDeploySchema.model_validate(config).model_dump(exclude_unset=True)
    assert [a["name"] for a in kept["applications"]] == [*families.names(), "gateway"]
    for given, taken in zip(config["applications"], kept["applications"], strict=True):
        assert given.keys() == taken.keys()
        for wanted, got in zip(given["deployments"], taken["deployments"], strict=True):
            assert wanted.keys() == got.keys()


def test_autoscaling_can_happen(plain: Settings) -> None:
    from ray.serve.config import AutoscalingConfig

    for application in serve_config(plain)["applications"]:
        for deployment in application["deployments"]:
            scaling = deployment["autoscaling_config"]
            assert scaling.keys() <= AutoscalingConfig.model_fields.keys()
            module, _, name = scaling["policy"]["policy_function"].partition(":")
            assert callable(getattr(importlib.import_module(module), name))


def test_routes_do_not_overlap_and_the_gateway_takes_the_rest(plain: Settings) -> None:
    routes = [a["route_prefix"] for a in serve_config(plain)["applications"]]
    assert routes[-1] == "/"
    assert sorted(routes[:-1]) == ["/predict/atmos_temperature", "/predict/insurance"]


def test_only_the_named_families_are_served(tmp_path: Path) -> None:
    config = serve_config(Settings(home=tmp_path, families=("insurance",)))
    assert [a["name"] for a in config["applications"]] == ["insurance", "gateway"]
    assert config["applications"][-1]["args"] == {"families": ["insurance"]}


def test_every_import_path_exists(plain: Settings) -> None:
    paths = {a["import_path"] for a in serve_config(plain)["applications"]} | {MIDDLEWARES}
    for path in paths:
        module, _, name = path.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_ray_and_serve_know_every_variable_of_the_environment(plain: Settings) -> None:
    from ray._private import ray_constants
    from ray.serve._private import constants, constants_utils

    modules = (constants, constants_utils, ray_constants)
    text = "".join(Path(m.__file__ or "").read_text() for m in modules)
    assert [name for name in serve_environment(plain) if f'"{name}"' not in text] == []


def test_two_homes_share_no_path_and_sockets_stay_short(tmp_path: Path) -> None:
    one, two = (serve_environment(Settings(home=tmp_path / name)) for name in ("a", "b"))
    paths = [n for n, value in one.items() if value.startswith("/") and n != standby.BINARY]
    assert len(paths) == 5
    assert all(one[name] != two[name] for name in paths)
    # HAProxy adds the node's id, and a process id while it starts; 107 bytes are all there is.
    longest = max(len(one[name]) for name in paths if name.endswith("SOCKET_PATH"))
    assert longest + len("/") + 56 + len(".1234567.tmp") <= 107
