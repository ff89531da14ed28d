"""What Ray Serve and HAProxy are told: the declarative config, and every node's environment."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

from raysys import families
from raysys.serving import scaling, standby
from raysys.settings import Settings

MODEL = "deployments.app:model"
GATEWAY = "deployments.app:gateway"
GATEWAY_APPLICATION = "gateway"
DEPLOYMENT = "Model"
GATEWAY_DEPLOYMENT = "Gateway"
MIDDLEWARES = "deployments.edge:middlewares"

# A replica answers in a fraction of a millisecond, one request after the other: more than a few at
# once only wait, and HAProxy lets them wait, or go away, at a hundredth of what it costs a replica.
AT_ONCE = 8
WAITING = 28  # the last of them waits some ten milliseconds for a replica of full speed
# Who asks again as soon as it is refused took a whole CPU from those that were admitted.
REFUSAL_MILLISECONDS = 100
QUEUE_SECONDS = 5
REQUEST_SECONDS = 10
REFUSAL = json.dumps(
    {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "Too many requests are waiting, or no replica is there. Try again shortly.",
        "error": "Too many requests are waiting, or no replica is there. Try again shortly.",
    }
)

QUIET = {"enable_access_log": False, "log_level": "WARNING", "encoding": "JSON"}
METRIC_PUSH_SECONDS = 2


def served_families(settings: Settings) -> tuple[str, ...]:
    """Return the names of the families that are served."""
    return settings.families or families.names()


def serve_config(settings: Settings) -> dict[str, Any]:
    """Return Serve's declarative config: one application a family, and the gateway."""
    names = served_families(settings)
    return {
        "proxy_location": "EveryNode",
        "http_options": {
            "host": settings.http_host,
            "port": settings.http_port,
            "keep_alive_timeout_s": 90,
        },
        "logging_config": QUIET,
        "applications": [
            *(_family_application(settings, name) for name in names),
            _gateway_application(settings, names),
        ],
    }


def _family_application(settings: Settings, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "route_prefix": f"/predict/{families.get(name).route}",
        "import_path": MODEL,
        "args": {"family": name},
        "logging_config": QUIET,
        "deployments": [_deployment(settings, DEPLOYMENT, settings.max_replicas)],
    }


def _gateway_application(settings: Settings, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "name": GATEWAY_APPLICATION,
        "route_prefix": "/",
        "import_path": GATEWAY,
        "args": {"families": list(names)},
        "logging_config": QUIET,
        "deployments": [_deployment(settings, GATEWAY_DEPLOYMENT, settings.min_replicas)],
    }


def _deployment(settings: Settings, name: str, most: int) -> dict[str, Any]:
    return {
        "name": name,
        "ray_actor_options": _share(settings),
        # A request holds a replica for a fraction of a millisecond: more than these wait in vain.
        "max_ongoing_requests": 64,
        "max_queued_requests": 256,
        "backpressure_config": {"status_code": 503, "retry_after_s": 1},
        "autoscaling_config": {
            "min_replicas": settings.min_replicas,
            "max_replicas": max(most, settings.min_replicas),
            "policy": {"policy_function": scaling.POLICY},
            "upscale_delay_s": 4,
            "downscale_delay_s": 60,
            "look_back_period_s": 12,
        },
        "health_check_period_s": 5,
        "health_check_timeout_s": 20,
        "graceful_shutdown_wait_loop_s": 0.5,
        "graceful_shutdown_timeout_s": 20,
    }


def _share(settings: Settings) -> dict[str, Any]:
    if not settings.service_resource:
        return {"num_cpus": settings.replica_cpus}
    return {"num_cpus": 0, "resources": {settings.service_resource: settings.replica_cpus}}


def serve_environment(
    settings: Settings, cpus: int | None = None, programs: Path | None = None
) -> dict[str, str]:
    """Return the variables that must be set wherever a node of the cluster starts.

    `cpus` is how many such a node has, and `programs` the folder where this package's are installed there; both are
    this machine's when nobody says them.
    """
    # HAProxy appends the node's id of 56 letters, and a UNIX socket's path may have 107 bytes.
    folder = settings.session_folder / "ha"
    threads = max(1, min(4, (cpus or os.cpu_count() or 1) // 2))
    if programs is None and sys.platform == "linux":
        programs = Path(sysconfig.get_path("scripts"))
    return {
        **({standby.BINARY: str(programs / standby.PROGRAM)} if programs else {}),
        # With Ray's 15 every other process of the machine goes before a replica; the work that nobody
        # waits for gives way by itself (cluster.give_way).
        "RAY_worker_niceness": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": MIDDLEWARES,
        "RAY_SERVE_HAPROXY_NBTHREAD": str(threads),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(settings.haproxy_metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(settings.haproxy_stats_port),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(settings.fallback_port),
        # Parsing a log line a request in Python cost a sixth of the throughput; HAProxy counts by itself.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": "60",
        # A dead HAProxy is replaced after three checks, and a stand-in answers until then (standby): with the 10 s of
        # the default, half a minute.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": _backend_rules(),
        "RAY_SERVE_HAPROXY_RETRY_ON": _default_rules(),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": str(METRIC_PUSH_SECONDS),
        "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": str(METRIC_PUSH_SECONDS),
    }


def _backend_rules() -> str:
    """Return what ends `default-server … inter` in each backend of Serve's template, and goes on from there.

    The template has no place for a limit, so one of its values brings the lines along: at most `AT_ONCE` requests in
    a replica; beyond `WAITING` more for each replica a refusal after a tenth of a second; a body is whole before it
    takes a place; and what HAProxy itself refuses is 503 rather than Serve's 500.
    """
    refusal = f"content-type application/problem+json string '{REFUSAL}' hdr Retry-After 1"
    lines = (
        f"5s maxconn {AT_ONCE}",
        "option http-buffer-request",
        f"timeout queue {QUEUE_SECONDS}s",
        f"timeout tarpit {REFUSAL_MILLISECONDS}ms",
        f"http-request tarpit status 503 {refusal} if {{ avg_queue ge {WAITING} }}",
        *(f"http-error status {status} {refusal}" for status in (502, 503, 504)),
        "default-server",
    )
    return "\n    ".join(lines)


def _default_rules() -> str:
    """Return what ends `retry-on`, and a limit on how long a caller may take to send its request."""
    return f"conn-failure\n    timeout http-request {REQUEST_SECONDS}s"
