"""The durable crawl: plan the windows, fetch them a few to a step, ask once more for what failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from raysys import durable, families, metrics
from raysys.errors import InvalidInput, QuotaExhausted, RaysysError, SourceError
from raysys.families.base import Series
from raysys.records import CrawlReport, Record, Window, WindowReport, plain
from raysys.runtime import Runtime

BATCH = 6  # windows of one step: what a crash makes us ask for again


class Plan(Record, frozen=True):
    """What a crawl is to ask for, and of whom."""

    source: str
    series: str
    windows: list[Window]


class Failure(Record, frozen=True):
    """A window that brought nothing, and why; `code` is the source's, or `other` for one that is no short number."""

    window: Window
    error: str
    code: str = "other"


class Batch(Record, frozen=True):
    """What one step brought; `stopped` says why nothing more is asked for today."""

    reports: list[WindowReport] = []
    failed: list[Failure] = []
    stopped: str | None = None


@durable.workflow(name="crawl")
def crawl(family: str, since: str | None = None, until: str | None = None) -> dict[str, Any]:
    """Store every hour from `since` to `until` (ISO days of the source's calendar) that is missing.

    Returns a CrawlReport. Fails at once when the source refuses altogether, and at the end when windows failed twice;
    these are remembered, and asked for by the next crawl.
    """
    plan = plan_windows(family, since, until)
    first = _fetch_all(family, plan.windows, len(plan.windows))
    second = Batch()
    if first.failed and first.stopped is None:
        second = _fetch_all(family, [each.window for each in first.failed], len(plan.windows))
    left = first.failed if first.stopped is not None else second.failed
    reports = [*first.reports, *second.reports]
    report = _sum(family, plan, reports, left, first.stopped or second.stopped)
    if left:
        raise SourceError(_complaint(report), report=plain(report))
    return dict(plain(report))


def _fetch_all(family: str, windows: Sequence[Window], total: int) -> Batch:
    reports: list[WindowReport] = []
    failed: list[Failure] = []
    for start in range(0, len(windows), BATCH):
        batch = fetch(family, list(windows[start : start + BATCH]), start, total)
        reports += batch.reports
        failed += batch.failed
        if batch.stopped is not None:
            return Batch(reports=reports, failed=failed, stopped=batch.stopped)
    return Batch(reports=reports, failed=failed)


def _sum(
    family: str,
    plan: Plan,
    reports: Sequence[WindowReport],
    left: Sequence[Failure],
    stopped: str | None,
) -> CrawlReport:
    return CrawlReport(
        family=family,
        source=plan.source,
        series=plan.series,
        windows=len(plan.windows),
        read=sum(each.read for each in reports),
        new=sum(each.new for each in reports),
        known=sum(each.known for each in reports),
        rejected=sum(each.rejected for each in reports),
        missing_hours=sum(each.missing_hours for each in reports),
        failed=[f"{_days(each.window)}: {each.error}" for each in left],
        stopped=stopped,
    )


def _complaint(report: CrawlReport) -> str:
    return (
        f"{len(report.failed)} of {report.windows} windows of {report.source} failed twice, the rest is stored "
        f"({report.new} new rows). The next crawl asks for them again: {'; '.join(report.failed[:10])}"
    )


def _days(window: Window) -> str:
    return f"{window.start:%Y-%m-%dT%H}..{window.end:%Y-%m-%dT%H}Z"


# Sources wait for others most of their time, so these steps take no CPU from the trials of a training.


@durable.step(where="ray", num_cpus=0)
def plan_windows(family: str, since: str | None, until: str | None) -> Plan:
    """Find the windows that are not complete yet."""
    from raysys.pipelines import crawl as pipeline
    from raysys.sources import open_source

    if not isinstance(families.get(family).data, Series):
        raise InvalidInput(
            f"{family} is no series of hours, so there is nothing to crawl. Use `raysys data import {family} FILE`.",
            issues=[{"loc": ["family"], "reason": "not crawled"}],
        )
    with Runtime() as runtime, open_source(runtime.settings) as source:
        windows = pipeline.plan(
            runtime.engine,
            source,
            since=_date(since, "since"),
            until=_date(until, "until"),
            now=_now(),
            history_days=runtime.settings.atmos_history_days,
        )
        durable.notify(f"{len(windows)} windows to ask {source.name} for", total=len(windows))
        return Plan(source=source.name, series=source.series, windows=windows)


def _now() -> datetime:
    return datetime.now(UTC)


def _date(text: str | None, name: str) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text[:10])
    except ValueError as error:
        raise InvalidInput(
            f"{name} is no day: {text!r}. Write it like 2024-12-31.",
            issues=[{"loc": [name], "reason": "not a day"}],
        ) from error


def count(batch: Batch, family: str, *_: Any) -> None:
    """Count what a step brought."""
    outcomes = {
        "new": sum(report.new for report in batch.reports),
        "known": sum(report.known for report in batch.reports),
        "rejected": sum(report.rejected for report in batch.reports),
        "missing": sum(report.missing_hours for report in batch.reports),
    }
    for outcome, rows in outcomes.items():
        metrics.add("crawl_rows", rows, family=family, outcome=outcome)
    codes = [failure.code for failure in batch.failed]
    for code in [*codes, "quota"] if batch.stopped else codes:
        metrics.add("crawl_errors", family=family, code=code)


@durable.step(where="ray", num_cpus=0, measured=count)
def fetch(family: str, windows: list[Window], before: int, total: int) -> Batch:
    """Fetch and store each of `windows`, of which `before` came before; a failed one is noted and left."""
    from raysys.pipelines import crawl as pipeline
    from raysys.sources import open_source

    run_id = durable.workflow_id()
    reports: list[WindowReport] = []
    failed: list[Failure] = []
    with Runtime() as runtime, open_source(runtime.settings) as source:
        for done, window in enumerate(windows, start=before + 1):
            now = _now()
            try:
                report = pipeline.fetch_window(
                    runtime.engine, source, family, window, workflow_id=run_id, now=now
                )
            except SourceError as error:
                stop = pipeline.note_failure(
                    runtime.engine, source, window, error, workflow_id=run_id, now=now
                )
                failed.append(Failure(window=window, error=error.message, code=_code(error)))
                durable.notify(f"{_days(window)} failed: {error.message}", done=done, total=total)
                if stop:
                    return Batch(reports=reports, failed=[], stopped=_stopped(error))
                continue
            reports.append(report)
            durable.notify(_told(report), done=done, total=total)
    return Batch(reports=reports, failed=failed)


def _code(error: RaysysError) -> str:
    code = str(error.fields.get("code") or "")
    return code if code.isdecimal() and len(code) <= 3 else "other"


def _stopped(error: RaysysError) -> str:
    """Return why the crawl ends early but well; any other refusal is an error of the run."""
    if isinstance(error, QuotaExhausted):
        return error.message
    raise error


def _told(report: WindowReport) -> str:
    parts = [f"{_days(report.window)}: {report.new} new"]
    parts += [f"{report.rejected} rejected"] if report.rejected else []
    parts += [f"{report.missing_hours} h missing at the source"] if report.missing_hours else []
    return ", ".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Start a crawl, tell its progress line by line, and return 0 when it succeeded, else 1."""
    import argparse

    from workflows.console import run_to_end

    parser = argparse.ArgumentParser(prog="python -m workflows.crawl", description=main.__doc__)
    parser.add_argument("family", help="the family to crawl for")
    parser.add_argument("--since", help="first day, like 2024-01-31 (default: the first known)")
    parser.add_argument("--until", help="last day (default: the last published)")
    chosen = parser.parse_args(arguments)
    return run_to_end("crawl", chosen.family, chosen.since, chosen.until)


if __name__ == "__main__":
    raise SystemExit(main())
