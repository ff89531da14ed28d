"""The figures of a run as a table for people, JSON for programs, and a plot for the documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raysys.cli import screen

PARTS = (
    *("start", "model_milliseconds", "memory_megabytes", "reloads", "overload", "kills"),
    *("costs", "durable", "soak"),
)


def show(found: dict[str, Any]) -> None:
    """Print every part of a run."""
    for family, by_connections in found.get("throughput", {}).items():
        rows = [
            (
                connections,
                server,
                round(each["per_second"]),
                round(each["p50_ms"], 2),
                round(each["p99_ms"], 2),
                each["failed"] + each["cut"],
                f"{each['times']}" if server != "raysys" else "",
            )
            for connections, servers in by_connections.items()
            for server, each in servers.items()
        ]
        columns = ("connections", "server", "req/s", "p50 ms", "p99 ms", "failed", "raysys is x")
        screen.show_rows(family, columns, rows, empty="")
    for part in PARTS:
        if part in found:
            values = [
                (name, str(value) if isinstance(value, dict | list) else value)
                for name, value in found[part].items()
                if name != "samples"
            ]
            screen.show_rows(part.replace("_", " "), ("what", "value"), values, empty="")


def write(found: dict[str, Any], folder: Path) -> None:
    """Write `bench.json` and, where throughput was measured, `bench.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(found, indent=2) + "\n")
    if "throughput" in found:
        _plot(found, folder / "bench.svg")


def _plot(found: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    families = found["throughput"]
    figure, axes = plt.subplots(1, len(families), figsize=(5 * len(families), 3.6), squeeze=False)
    for axis, (family, by_connections) in zip(axes[0], families.items(), strict=True):
        servers = list(next(iter(by_connections.values())))
        for server in servers:
            values = [servers_at[server]["per_second"] for servers_at in by_connections.values()]
            axis.plot(list(by_connections), values, marker="o", label=server)
        axis.set(title=family, xlabel="connections", ylabel="predictions per second", yscale="log")
        axis.legend(fontsize="small")
        axis.grid(alpha=0.3)
    about = found["machine"]
    figure.suptitle(f"{about['cpus']} CPUs ({about['cpu']})", fontsize="small")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
