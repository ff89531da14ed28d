"""What is measured of runs and steps that ended in this process."""

from __future__ import annotations

from raysys import metrics


def run_ended(workflow: str, family: str, status: str, seconds: float) -> None:
    """Count a run by its outcome, and how long it took since it began here."""
    metrics.add("runs", workflow=workflow, family=family, status=status)
    metrics.observe("run_seconds", seconds, workflow=workflow, family=family, status=status)


def step_ended(step: str, status: str, seconds: float) -> None:
    """Count an attempt of a step by its outcome, and how long it took."""
    metrics.add("steps", step=step, status=status)
    metrics.observe("step_seconds", seconds, step=step, status=status)
