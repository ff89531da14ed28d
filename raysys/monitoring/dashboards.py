"""The dashboards: the platform, one family, the workflows; each a table of titles and formulas."""

from __future__ import annotations

from raysys.monitoring.names import name, other
from raysys.monitoring.panels import Dashboard, Panel, Query, Row

FAMILY = '{family="$family"}'


def dashboards() -> list[Dashboard]:
    """Return every dashboard."""
    return [platform(), family(), workflows()]


def platform() -> Dashboard:
    """Return the page that says whether everything is well."""
    return Dashboard(
        uid="raysys-platform",
        title="raysys: platform",
        about="Whether everything is well: requests, what is served, processes, machines.",
        rows=[
            Row("Requests", _requests()),
            Row("Served", _served()),
            Row("Processes and machines", _machines()),
        ],
    )


def _requests() -> list[Panel]:
    queue = other("haproxy_backend_current_queue")
    mean = other("haproxy_backend_total_time_average_seconds")
    return [
        Panel(
            "Requests",
            [Query("raysys:requests:rate5m", "{{family}}")],
            "Requests a second that replicas answered.",
            "reqps",
        ),
        Panel(
            "Failed requests",
            [Query("raysys:failed_requests:ratio5m", "{{family}}")],
            "Share of answers 5xx, those that no replica saw among them.",
            "percentunit",
        ),
        Panel(
            "Time in a replica",
            [
                Query("raysys:request_seconds:p50", "{{family}} half"),
                Query("raysys:request_seconds:p99", "{{family}} 99 %"),
            ],
            "What half of the requests, and 99 of 100, take at most.",
            "s",
        ),
        Panel(
            "Waiting for a replica",
            [Query(f'{queue}{{proxy=~"http-.+"}}', "{{proxy}}")],
            "Requests in HAProxy's queue.",
        ),
        Panel(
            "Time at the edge",
            [Query(f'{mean}{{proxy=~"http-.+"}}', "{{proxy}}")],
            "Mean time of the last 1024 requests, waiting included.",
            "s",
        ),
        Panel(
            "In work",
            [Query(f"sum by (family) ({name('requests_ongoing')})", "{{family}}")],
            "Requests that replicas have begun and not answered.",
        ),
    ]


def _served() -> list[Panel]:
    logged = name("logged_requests")
    return [
        Panel(
            "Versions",
            [Query(f"max by (family) ({name('model_version')})", "{{family}}")],
            "The version that serves.",
            kind="stat",
        ),
        Panel(
            "Age of the champion",
            [Query(f"max by (family) ({name('model_age_hours')})", "{{family}}")],
            "Since it was promoted for the first time.",
            "h",
            kind="stat",
        ),
        Panel(
            "Age of the newest row",
            [Query(f"max by (family) ({name('data_age_hours')})", "{{family}}")],
            "How long ago the newest stored row was.",
            "h",
            kind="stat",
        ),
        Panel(
            "Refused versions",
            [Query(f"max by (family) ({name('refused_versions')})", "{{family}}")],
            "Versions that replicas refuse now.",
        ),
        Panel(
            "Log of predictions",
            [Query(f"sum by (outcome) (rate({logged}[5m]))", "{{outcome}}")],
            "Requests a second by what the log did with them.",
            "reqps",
        ),
        Panel(
            "Registry",
            [Query(f"min by (family) ({name('registry_reachable')})", "{{family}}")],
            "1 while replicas hear of new versions.",
        ),
    ]


def _machines() -> list[Panel]:
    healthy = other("ray_serve_deployment_replica_healthy")
    memory, whole = other("ray_node_mem_used"), other("ray_node_mem_total")
    disk = other("ray_node_disk_utilization_percentage")
    return [
        Panel(
            "Worker",
            [Query(f"max({name('worker_up')})", "up")],
            "1 while workflows are run.",
            kind="stat",
        ),
        Panel(
            "Replicas",
            [Query(f"sum by (application) ({healthy})", "{{application}}")],
            "Healthy replicas.",
        ),
        Panel(
            "Applications",
            [Query(other("ray_serve_application_status"), "{{application}}")],
            "6 is running.",
        ),
        Panel(
            "CPU",
            [Query(f"max by (instance) ({other('ray_node_cpu_utilization')})", "{{instance}}")],
            "Of each node.",
            "percent",
        ),
        Panel(
            "Memory",
            [Query(f"max by (instance) ({memory} / {whole})", "{{instance}}")],
            "Of each node.",
            "percentunit",
        ),
        Panel(
            "Memory of processes",
            [Query(f"topk(10, sum by (Component) ({other('ray_component_uss_bytes')}))")],
            "The ten kinds that take most.",
            "bytes",
        ),
        Panel(
            "Disk of nodes",
            [Query(f"max by (instance) ({disk})", "{{instance}}")],
            "In use; Ray stops spilling at 95 %.",
            "percent",
        ),
        Panel(
            "Disk of the home",
            [Query(f"min({name('disk_free_bytes')})", "free")],
            "Bytes that are free.",
            "bytes",
        ),
        Panel(
            "Targets",
            [Query(f"min by (job) ({other('up')})", "{{job}}")],
            "1 while Prometheus can read them.",
        ),
    ]


def family() -> Dashboard:
    """Return the page of one family, which its reader chooses."""
    return Dashboard(
        uid="raysys-family",
        title="raysys: one family",
        about="One family: its requests, its model, how right it is, its data.",
        rows=[
            Row("Requests", _family_requests()),
            Row("Quality", _family_quality()),
            Row("Model", _family_model()),
            Row("Data", _family_data()),
        ],
        variables=[("family", name("model_version"))],
    )


def _family_requests() -> list[Panel]:
    bucket = name("request_seconds", "bucket")
    return [
        Panel(
            "Requests by status",
            [Query(f"sum by (status) (rate({name('requests')}{FAMILY}[5m]))", "{{status}}")],
            "A second, as replicas answered them.",
            "reqps",
        ),
        Panel(
            "Time in a replica",
            [Query(f"sum by (le) (increase({bucket}{FAMILY}[1m]))", "{{le}}")],
            "How many requests took how long.",
            kind="heatmap",
        ),
        Panel(
            "Predicted rows by version",
            [Query(f"sum by (version) (rate({name('predictions')}{FAMILY}[5m]))", "{{version}}")],
            "A second.",
            "rowsps",
        ),
    ]


def _family_quality() -> list[Panel]:
    served = f"and on (family, version) {name('model_info')}"
    by = "max by (family, version)"
    return [
        Panel(
            "Live error",
            [
                Query(f"{by} ({name('live_error')}{FAMILY})", "{{version}} live"),
                Query(
                    f"{by} ({name('live_baseline_error')}{FAMILY}) {served}", "{{version}} baseline"
                ),
                Query(f"{by} ({name('test_error')}{FAMILY}) {served}", "{{version}} test rows"),
            ],
            "Of served predictions against the truth, with the baseline's on the same and the version's on its test "
            "rows.",
            width=12,
        ),
        Panel(
            "Coverage",
            [Query(f"max by (version) ({name('truth_coverage')}{FAMILY})", "{{version}}")],
            "Share of the predicted values whose truth is known.",
            "percentunit",
            width=12,
        ),
        Panel(
            "Drift of inputs",
            [Query(f"max by (feature) ({name('drift_score')}{FAMILY})", "{{feature}}")],
            "As a multiple of the threshold: more than 1 has drifted.",
        ),
        Panel(
            "Drift of predictions",
            [Query(f"max({name('prediction_drift_score')}{FAMILY})", "predictions")],
            "As a multiple of the threshold.",
        ),
        Panel(
            "Stability index of inputs",
            [Query(f"max by (feature) ({name('drift_psi')}{FAMILY})", "{{feature}}")],
            "Population stability index against the snapshot of the served version.",
        ),
        Panel(
            "Truths",
            [Query(f"max by (outcome) ({name('truths')}{FAMILY})", "{{outcome}}")],
            "What the latest join brought.",
            width=12,
        ),
        Panel(
            "Acts of the policy",
            [
                Query(
                    f"sum by (action) (increase({name('decisions')}{FAMILY}[1d])) or vector(0)",
                    "{{action}}",
                )
            ],
            "Trainings, rollbacks and alerts of the last day.",
            width=12,
        ),
    ]


def _family_model() -> list[Panel]:
    loads, refusals = name("model_loads"), name("refusals")
    load_seconds = name("model_load_seconds", "bucket")
    return [
        Panel(
            "Version",
            [Query(f"max by (version) ({name('model_info')}{FAMILY})", "{{version}}")],
            "1 for each version that a replica serves.",
        ),
        Panel(
            "Loads",
            [
                Query(f"sum by (outcome) (increase({loads}{FAMILY}[1h]))", "{{outcome}}"),
                Query(
                    f"sum by (reason) (increase({refusals}{FAMILY}[1h])) or vector(0)",
                    "refused: {{reason}}",
                ),
                Query(f"sum(increase({name('model_swaps')}{FAMILY}[1h]))", "swapped"),
            ],
            "Versions that replicas loaded, refused and swapped to within an hour.",
        ),
        Panel(
            "Time to load",
            [
                Query(
                    f"histogram_quantile(0.9, sum by (le) (rate({load_seconds}{FAMILY}[1h]))) or vector(0)",
                    "90 %",
                )
            ],
            "To check, build and warm a version.",
            "s",
        ),
        Panel(
            "Promotions",
            [Query(f"max by (action) ({name('promotions')}{FAMILY})", "{{action}}")],
            "Moves of the champion so far.",
        ),
        Panel(
            "Best validation metric",
            [Query(f"min({name('best_metric')}{FAMILY})", "best")],
            "Of the latest study; lower is better.",
        ),
        Panel(
            "Trials",
            [Query(f"sum(increase({name('trials')}{FAMILY}[1d]))", "trials")],
            "That ended within a day.",
        ),
    ]


def _family_data() -> list[Panel]:
    rows, missing = name("crawl_rows"), name("data_missing_hours")
    return [
        Panel(
            "Rows",
            [Query(f"max({name('data_rows')}{FAMILY})", "stored")],
            "Stored rows.",
        ),
        Panel(
            "Age of the newest row",
            [Query(f"max({name('data_age_hours')}{FAMILY})", "age")],
            "How long ago the newest stored row was.",
            "h",
        ),
        Panel(
            "Missing",
            [
                Query(f"max({missing}{FAMILY}) or vector(0)", "hours of the last 30 days"),
                Query(
                    f"max({name('data_failed_days')}{FAMILY}) or vector(0)",
                    "days that are asked again",
                ),
            ],
            "What the series lacks; nothing for a table.",
        ),
        Panel(
            "Crawled",
            [Query(f"sum by (outcome) (increase({rows}{FAMILY}[1d])) or vector(0)", "{{outcome}}")],
            "Rows that the source sent within a day.",
            width=12,
        ),
        Panel(
            "Errors of the source",
            [
                Query(
                    f"sum by (code) (increase({name('crawl_errors')}{FAMILY}[1d])) or vector(0)",
                    "{{code}}",
                )
            ],
            "Windows that it refused within a day, by its code.",
            width=12,
        ),
    ]


def workflows() -> Dashboard:
    """Return the page of the runs."""
    runs, steps = name("runs"), name("steps")
    run_seconds, step_seconds = name("run_seconds", "bucket"), name("step_seconds", "bucket")
    half = "histogram_quantile(0.5, sum by ({by}, le) (increase({bucket}[1d])))"
    return Dashboard(
        uid="raysys-workflows",
        title="raysys: workflows",
        about="Crawls, trainings and what else runs by the clock: how often, how long, how well.",
        rows=[
            Row(
                "Runs",
                [
                    Panel(
                        "Runs of the last day",
                        [
                            Query(
                                f"sum by (workflow, status) ({name('recent_runs')})",
                                "{{workflow}} {{status}}",
                            )
                        ],
                        "That wait, go on, or ended within a day.",
                    ),
                    Panel(
                        "Ended",
                        [
                            Query(
                                f"sum by (workflow, status) (increase({runs}[1h]))",
                                "{{workflow}} {{status}}",
                            )
                        ],
                        "Runs that ended within an hour.",
                    ),
                    Panel(
                        "Time of a run",
                        [Query(half.format(by="workflow", bucket=run_seconds), "{{workflow}}")],
                        "What half of the last day's runs took at most.",
                        "s",
                    ),
                ],
            ),
            Row(
                "Steps",
                [
                    Panel(
                        "Attempts",
                        [Query(f"sum by (step) (increase({steps}[1h]))", "{{step}}")],
                        "That ended within an hour.",
                    ),
                    Panel(
                        "Failed attempts",
                        [
                            Query(
                                f'sum by (step) (increase({steps}{{status="FAILED"}}[1h])) or vector(0)',
                                "{{step}}",
                            )
                        ],
                        "Within an hour; most are made up for by the next attempt.",
                    ),
                    Panel(
                        "Time of a step",
                        [Query(half.format(by="step", bucket=step_seconds), "{{step}}")],
                        "What half of the last day's attempts took at most.",
                        "s",
                    ),
                    Panel(
                        "Ray tasks",
                        [Query(f"sum by (State) ({other('ray_tasks')})", "{{State}}")],
                        "By state, those of steps among them.",
                    ),
                    Panel(
                        "Crawled rows",
                        [
                            Query(
                                f"sum by (family, outcome) (increase({name('crawl_rows')}[1h])) or vector(0)",
                                "{{family}} {{outcome}}",
                            )
                        ],
                        "Within an hour.",
                    ),
                    Panel(
                        "Trials",
                        [Query(f"sum by (family) (increase({name('trials')}[1h]))", "{{family}}")],
                        "That ended within an hour.",
                    ),
                ],
            ),
        ],
    )
