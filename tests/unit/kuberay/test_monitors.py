from __future__ import annotations

import json

from kuberay import monitors
from raysys.monitoring import rules, scrape


def test_the_cluster_has_the_rules_of_the_laptop() -> None:
    (found,) = monitors.prometheus_rules()
    assert found["spec"] == rules.groups()


def test_every_port_that_is_scraped_is_one_of_the_pods() -> None:
    from kuberay.manifests import folder_of, render

    (service,) = [d for d in render(folder_of("production")) if d["kind"] == "RayService"]
    cluster = service["spec"]["rayClusterConfig"]
    groups = {"head": cluster["headGroupSpec"], "worker": cluster["workerGroupSpecs"][0]}
    for monitor in monitors.pod_monitors():
        kind = monitor["spec"]["selector"]["matchLabels"]["ray.io/node-type"]
        container = groups[kind]["template"]["spec"]["containers"][0]
        # KubeRay itself adds the port `metrics`.
        ports = {port["name"] for port in container["ports"]} | {"metrics"}
        scraped = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
        assert scraped <= ports, kind


def test_samples_get_the_same_names_on_the_cluster() -> None:
    (rename, drop) = monitors.pod_monitors()[0]["spec"]["podMetricsEndpoints"][0][
        "metricRelabelings"
    ]
    on_laptop, _ = scrape.relabelings()
    assert rename["sourceLabels"] == on_laptop["source_labels"]
    assert rename["targetLabel"] == on_laptop["target_label"]
    assert rename["regex"] == on_laptop["regex"]
    assert drop["action"] == "labeldrop"


def test_a_dashboard_fits_into_a_config_map() -> None:
    for each in monitors.dashboards():
        ((name, text),) = each["data"].items()
        assert len(text) < 500_000
        assert json.loads(text)["uid"] == name.removesuffix(".json")
