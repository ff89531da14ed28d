"""`raysys crawl`, `train` and `predict`: the main job, one command each."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Annotated, Any

import httpx
import typer

from raysys import families
from raysys.cli import screen
from raysys.cli.context import AsJson, FamilyName, Wait, opened
from raysys.cli.runs import started
from raysys.errors import InvalidInput, RaysysError, Unavailable
from raysys.records import CrawlReport, TrainReport, revive
from raysys.settings import Settings

Day = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="A day, YYYY-MM-DD, of the source's own calendar."),
]


def crawl(
    family: FamilyName,
    since: Day = None,
    until: Day = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Fetch what is missing from the family's source, as a durable run; prints its id."""
    days = [day.date().isoformat() if day else None for day in (since, until)]
    if since and until and since > until:
        raise typer.BadParameter(f"--since {days[0]} lies after --until {days[1]}")
    with opened() as runtime:
        id = runtime.durable.start("crawl", family, *days)
        run = started(runtime.durable, id, wait=wait, as_json=as_json)
    if run:
        report = revive(run.output, CrawlReport)
        screen.show_json(report) if as_json else screen.say(crawl_sentence(report))
        if report.stopped:
            raise typer.Exit(1)


def train(
    family: FamilyName,
    trials: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Configurations that the search tries.")
    ] = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Search, train, judge and, when it is better, promote a model, as a durable run; prints its id."""
    with opened() as runtime:
        id = runtime.durable.start("train", family, trials)
        run = started(runtime.durable, id, wait=wait, as_json=as_json)
    if run:
        report = revive(run.output, TrainReport)
        screen.show_json(report) if as_json else show_training(report)


def predict(
    family: FamilyName,
    request: Annotated[
        str, typer.Argument(help="The request as JSON, or - for standard input.", metavar="JSON")
    ],
) -> None:
    """Ask the served model for one prediction over HTTP; prints the answer as JSON."""
    text = sys.stdin.read() if request == "-" else request
    screen.show_json(ask(Settings(), family, text))


def ask(settings: Settings, family: str, body: str) -> Any:
    """Return the served answer to `body`; an error answer is raised with its own words."""
    url = f"{settings.http_url}/predict/{families.get(family).route}"
    try:
        answer = httpx.put(
            url, content=body, headers={"Content-Type": "application/json"}, timeout=30
        )
    except httpx.HTTPError as error:
        raise Unavailable(f"{url} does not answer ({error}). Run `raysys up`.") from error
    if answer.is_success:
        return answer.json()
    raise _refusal(answer)


def _refusal(answer: httpx.Response) -> RaysysError:
    try:
        problem = answer.json()
    except json.JSONDecodeError:
        return Unavailable(f"{answer.url} answered {answer.status_code}: {answer.text[:300]}")
    message = f"{problem.get('title', answer.status_code)}: {problem.get('detail', '')}"
    if answer.is_server_error:
        return Unavailable(message)
    return InvalidInput(message, issues=problem.get("errors", []))


def crawl_sentence(report: CrawlReport) -> str:
    """Return a crawl's outcome in one sentence."""
    stopped = f" Stopped: {report.stopped}. The next crawl goes on." if report.stopped else ""
    return (
        f"{report.family}: {report.windows} windows of {report.source}, {report.read} rows read: {report.new} new, "
        f"{report.known} known, {report.rejected} rejected; {report.missing_hours} hours are missing there.{stopped}"
    )


def show_training(report: TrainReport) -> None:
    """Print how the new version scored against all that it was compared with, and the gate's word."""
    screen.show_rows(
        f"{report.family} version {report.version}: {report.evaluation.rows} held-out rows, {report.trials} trials",
        ("who", *sorted(report.evaluation.scores["model"])),
        [
            (who, *(scores[metric] for metric in sorted(scores)))
            for who, scores in sorted(
                report.evaluation.scores.items(), key=lambda item: item[1][report.metric_name]
            )
        ],
        empty="",
    )
    verdict = "promoted" if report.promoted else "not promoted"
    screen.say(f"{report.family} version {report.version} is {verdict}: {report.verdict.reason}")
