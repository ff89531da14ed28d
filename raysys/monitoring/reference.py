"""The text of docs/metrics.md: `python -m raysys.monitoring.reference > docs/metrics.md`."""

from __future__ import annotations

import re
import sys

from raysys.metrics import METRICS, Metric
from raysys.monitoring import rules
from raysys.monitoring.names import OTHERS

HEAD = """\
# Metrics

Written by `python -m raysys.monitoring.reference` from `raysys/metrics.py`; a test compares the two.

Replicas and the worker give their metrics to the agent of their node, which exports them with Ray's and Serve's: one
scrape (`RAYSYS_RAY_METRICS_PORT`, 8080) has them all, without a token. HAProxy has its own port
(`RAYSYS_HAPROXY_METRICS_PORT`, 9101). `raysys up` writes a scrape config into `HOME/monitoring`, and
`kuberay/monitoring` has the same for a cluster.

Labels are names that the operator chose, versions, codes and statuses: never an id, never what a caller sent. Besides,
Ray adds where a value comes from (`WorkerId`, `NodeAddress`, `SessionName`, ...), one series a process.

- A **counter** counts from the start of its process: use `rate` or `increase`.
- A **gauge** of a replica vanishes 20 s after the replica. One that the worker measures now and then is exported until
  it is three hours old (the best metric of a study for 30 days): that of a version that nobody serves any more goes by
  itself.
- A **histogram** leaves Ray as counters with `_total` behind the names below, since Ray's own histograms would replay
  each request in the agent; the scrape configs take the `_total` away.

`RAYSYS_METRICS=false` lets replicas count nothing.

## raysys
"""


def text() -> str:
    """Return the whole page."""
    return "".join([HEAD, _ours(), _recorded(), _others(), _alerts()])


def _ours() -> str:
    lines = "".join(_line(name, metric) for name, metric in METRICS.items())
    return f"\n| name | kind | labels | what |\n|---|---|---|---|\n{lines}"


def _line(name: str, metric: Metric) -> str:
    labels = [*metric.labels, *(["le"] if metric.bounds else [])]
    exported = metric.exported(name)
    shown = exported[0] if len(exported) == 1 else exported[0].removesuffix("_bucket")
    suffix = " (`_bucket`, `_sum`, `_count`)" if metric.bounds else ""
    cells = (
        f"`{shown}`{suffix}",
        metric.kind,
        " ".join(f"`{each}`" for each in labels),
        metric.about,
    )
    return f"| {' | '.join(cells)} |\n"


def _recorded() -> str:
    names = "\n".join(f"- `{each.name}`" for each in rules.recordings(rules.Objectives()))
    return f"\n## Recorded by the rules\n\n{names}\n"


def _others() -> str:
    lines = "".join(f"| `{name}` | {about} |\n" for name, about in OTHERS.items())
    return (
        "\n## Of Ray, Serve and HAProxy\n\nThere are hundreds; the rules and dashboards rely on these.\n\n"
        f"| name | what |\n|---|---|\n{lines}"
    )


def _alerts() -> str:
    lines = "".join(
        f"| `{alert.name}` | {alert.severity} | {alert.minutes} min "
        f"| [{_spoken(alert.summary)}](operations.md#{alert.section}) |\n"
        for alert in rules.alerts()
    )
    head = "| alert | severity | after | what, and what to do |\n|---|---|---|---|\n"
    return f"\n## Alerts\n\n{head}{lines}"


def _spoken(summary: str) -> str:
    """Return a summary with words in the place of Prometheus' own templates."""
    named = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: found[1].upper(), summary)
    return re.sub(r"\{\{ \$value[^}]*\}\}", "N", named)


if __name__ == "__main__":
    sys.stdout.write(text())
