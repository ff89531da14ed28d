"""The metrics that rules and dashboards may ask for: ours by their short names, and those of others that we rely on."""

from __future__ import annotations

from raysys.metrics import METRICS

# Of Ray 2.60, Serve and HAProxy; each is used by a rule or a dashboard, and a test finds those that are not.
OTHERS: dict[str, str] = {
    "up": "Prometheus: 1 when the target was scraped, by job and instance.",
    "haproxy_backend_http_responses_total": "HAProxy: answers by class of status (`code`), for `proxy` http-FAMILY; "
    "those that no replica saw are among them.",
    "haproxy_backend_current_queue": "HAProxy: requests that wait for a replica, by `proxy`.",
    "haproxy_backend_total_time_average_seconds": "HAProxy: mean time of the last 1024 requests, waiting included.",
    "ray_serve_application_status": "Serve: 6 for a running application; below 5 it fails or goes.",
    "ray_serve_deployment_replica_healthy": "Serve: 1 for a healthy replica, by `application`.",
    "ray_node_cpu_utilization": "Ray: CPU of a node in use, in percent.",
    "ray_node_mem_used": "Ray: bytes of memory of a node in use.",
    "ray_node_mem_total": "Ray: bytes of memory of a node.",
    "ray_node_disk_utilization_percentage": "Ray: disk of a node in use, in percent; spilling stops at 95.",
    "ray_component_uss_bytes": "Ray: bytes of memory of a process alone, by `Component`.",
    "ray_tasks": "Ray: tasks by `State`.",
}


def name(short: str, part: str = "") -> str:
    """Return the name that Prometheus has a metric of ours under; `part` is `bucket`, `sum` or `count` of a histogram.

    Raises KeyError for a metric that is not declared.
    """
    exported = METRICS[short].exported(short)
    return exported[("bucket", "sum", "count").index(part)] if part else exported[0]


def other(full: str) -> str:
    """Return the name of a metric of others; raises KeyError for one that is not in the list."""
    if full not in OTHERS:
        raise KeyError(full)
    return full
