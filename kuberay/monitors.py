"""What Prometheus' operator and Grafana's sidecar are given: what to scrape, rules, dashboards."""

from __future__ import annotations

import re
from typing import Any

from raysys.monitoring import files, rules, scrape

Document = dict[str, Any]

LABELS = {"release": "prometheus"}  # by which kube-prometheus-stack finds what is its own
HEAD_PORTS = ("metrics", "as-metrics", "dash-metrics", "proxy-metrics")
WORKER_PORTS = ("metrics", "proxy-metrics")


def pod_monitors() -> list[Document]:
    """Return what is scraped: the head with autoscaler and dashboard, the workers, and HAProxy on both."""
    return [
        _pod_monitor("raysys-head", "head", HEAD_PORTS),
        _pod_monitor("raysys-workers", "worker", WORKER_PORTS),
    ]


def _pod_monitor(name: str, kind: str, ports: tuple[str, ...]) -> Document:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": name, "labels": LABELS},
        "spec": {
            "selector": {
                "matchLabels": {
                    "ray.io/node-type": kind,
                    "ray.io/originated-from-cr-name": "raysys",
                }
            },
            "podMetricsEndpoints": [_endpoint(port) for port in ports],
        },
    }


def _endpoint(port: str) -> Document:
    return {
        "port": port,
        "interval": f"{scrape.SCRAPE_SECONDS}s",
        "relabelings": [
            {
                "action": "replace",
                "sourceLabels": ["__meta_kubernetes_pod_label_ray_io_cluster"],
                "targetLabel": "ray_io_cluster",
            }
        ],
        "metricRelabelings": [_camel(each) for each in scrape.relabelings()],
    }


def _camel(relabeling: Document) -> Document:
    """Return a relabeling of Prometheus with the names that its operator gives the fields."""
    return {re.sub(r"_(\w)", lambda m: m[1].upper(), key): v for key, v in relabeling.items()}


def prometheus_rules() -> list[Document]:
    """Return the recording and alert rules."""
    return [
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "raysys", "labels": LABELS},
            "spec": rules.groups(),
        }
    ]


def dashboards() -> list[Document]:
    """Return a ConfigMap for each dashboard, with the label that Grafana's sidecar looks for."""
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": name.removesuffix(".json"),
                "labels": {"grafana_dashboard": "1"},
            },
            "data": {name: text},
        }
        for name, text in files.dashboard_files().items()
    ]
