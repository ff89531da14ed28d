"""What Prometheus is to read, and how names are put right on the way in."""

from __future__ import annotations

from typing import Any

from raysys.metrics import METRICS, PREFIX, RAY_PREFIX
from raysys.settings import Settings

SCRAPE_SECONDS = 10  # Ray's processes tell the agent as often
DISCOVERY = "session_latest/prom_metrics_service_discovery.json"
RULES = "rules.yml"


def prometheus(settings: Settings) -> dict[str, Any]:
    """Return the config of a Prometheus that runs beside `raysys up`.

    Ray says itself which ports to read, and reading them needs no token. MLflow has no metrics.
    """
    return {
        "global": {
            "scrape_interval": f"{SCRAPE_SECONDS}s",
            "scrape_timeout": f"{SCRAPE_SECONDS - 2}s",
            "evaluation_interval": "15s",
        },
        "rule_files": [RULES],
        "scrape_configs": [
            {
                "job_name": "ray",
                "file_sd_configs": [
                    {
                        "files": [str(settings.session_folder / DISCOVERY)],
                        "refresh_interval": f"{SCRAPE_SECONDS}s",
                    }
                ],
                "metric_relabel_configs": relabelings(),
            },
            {
                "job_name": "haproxy",
                "static_configs": [{"targets": [f"127.0.0.1:{settings.haproxy_metrics_port}"]}],
            },
        ],
    }


def relabelings() -> list[dict[str, Any]]:
    """Return what is done to each sample: a histogram gets the names of one, and the exporter's own labels go."""
    histograms = "|".join(name for name, each in METRICS.items() if each.kind == "histogram")
    return [
        {
            "source_labels": ["__name__"],
            "regex": f"({RAY_PREFIX}{PREFIX}(?:{histograms})_(?:bucket|sum|count))_total",
            "target_label": "__name__",
            "replacement": "$1",
        },
        {"regex": "otel_scope_.*", "action": "labeldrop"},
    ]
