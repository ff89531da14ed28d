"""The files that Prometheus and Grafana read: written into a home, or as objects of Kubernetes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raysys.monitoring import rules, scrape
from raysys.monitoring.dashboards import dashboards
from raysys.monitoring.panels import render
from raysys.settings import Settings

FOLDER = "monitoring"
GRAFANA = "grafana"
RAY_DASHBOARDS = "session_latest/metrics/grafana/dashboards"
PROMETHEUS_URL = "http://127.0.0.1:9090"


def write(settings: Settings) -> Path:
    """Write the files of this machine, and return their folder."""
    folder = settings.home / FOLDER
    for name, text in files(settings).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def files(settings: Settings) -> dict[str, str]:
    """Return the text of every file of this machine by its path in the folder `monitoring` of the home."""
    return {
        "prometheus.yml": dump(scrape.prometheus(settings)),
        scrape.RULES: dump(rules.groups()),
        f"{GRAFANA}/provisioning/datasources/raysys.yml": dump(_datasource()),
        f"{GRAFANA}/provisioning/dashboards/raysys.yml": dump(_providers(settings)),
        **{f"{GRAFANA}/dashboards/{name}": text for name, text in dashboard_files().items()},
    }


def dashboard_files() -> dict[str, str]:
    """Return the JSON of every dashboard by its file's name."""
    return {f"{d.uid}.json": json.dumps(render(d), indent=1) + "\n" for d in dashboards()}


def commands(settings: Settings) -> dict[str, str]:
    """Return how Prometheus and Grafana are started beside `raysys up`, where they are installed."""
    folder = settings.home / FOLDER
    provisioning = folder / GRAFANA / "provisioning"
    config = f"--config.file={folder / 'prometheus.yml'} --storage.tsdb.path={folder / 'data'}"
    return {
        "prometheus": f"prometheus {config} --web.listen-address=127.0.0.1:9090",
        "grafana": f"GF_PATHS_PROVISIONING={provisioning} grafana server --homepath /usr/share/grafana",
    }


def _datasource() -> dict[str, Any]:
    return {
        "apiVersion": 1,
        "datasources": [
            {
                # The name that Ray's own dashboards ask for.
                "name": "Prometheus",
                "type": "prometheus",
                "access": "proxy",
                "url": PROMETHEUS_URL,
                "isDefault": True,
                "jsonData": {"timeInterval": f"{scrape.SCRAPE_SECONDS}s"},
            }
        ],
    }


def _providers(settings: Settings) -> dict[str, Any]:
    folders = {
        "raysys": settings.home / FOLDER / GRAFANA / "dashboards",
        "Ray": settings.session_folder / RAY_DASHBOARDS,
    }
    return {
        "apiVersion": 1,
        "providers": [
            {"name": name, "folder": name, "type": "file", "options": {"path": str(path)}}
            for name, path in folders.items()
        ],
    }


def dump(value: Any) -> str:
    """Return `value` as YAML, in its own order."""
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, width=120))
