"""`raysys demo`: the main job on simulated data for every family, offline, ending with served predictions."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from raysys import families, log
from raysys.cli import screen
from raysys.cli.context import opened
from raysys.cli.runs import finish
from raysys.cli.work import ask, crawl_sentence, show_training
from raysys.errors import Unavailable
from raysys.families.base import Family, Series, Table
from raysys.laptop import Stack
from raysys.pipelines import ingest
from raysys.records import CrawlReport, TrainReport, revive
from raysys.runtime import Runtime
from raysys.settings import Settings
from raysys.store import promotions

SERVED_SECONDS = 30.0
SEED = 7


def demo(
    trials: Annotated[
        int, typer.Option(min=1, max=100, help="Configurations that each search tries.")
    ] = 4,
) -> None:
    """Bring everything up and run the main job for every family; exit 0 only when its models answered."""
    settings = Settings()
    log.configure(settings)
    with screen.working("Starting") as notify:
        Stack(settings, notify).up()
    outcomes = []
    with opened(settings) as runtime:
        for name in families.names():
            outcomes.append(run_family(runtime, families.get(name), trials))
    _show(outcomes)
    if not all(o["answered_by_champion"] for o in outcomes):
        raise typer.Exit(1)


def run_family(runtime: Runtime, family: Family, trials: int) -> dict[str, Any]:
    """Run the main job for one family; return what the last table shows."""
    screen.out.rule(f"{family.name}: {family.title}", align="left")
    before = runtime.registry.champion(family.name)
    _bring_rows(runtime, family)
    run = finish(runtime.durable, runtime.durable.start("train", family.name, trials))
    report = revive(run.output, TrainReport)
    show_training(report)
    champion = runtime.registry.champion(family.name)
    if champion is None:
        raise Unavailable(
            f"No version of {family.name} has ever passed its gate: {report.verdict.reason}"
        )
    answer = _served_by(runtime.settings, family, champion.version)
    return {
        "family": family,
        "report": report,
        "rows": ingest.stored(runtime.engine, family, runtime.settings)["rows"],
        "before": before.version if before else None,
        "champion": champion.version,
        "answer": answer,
        "answered_by_champion": answer["model"]["version"] == champion.version,
        "moves": len(promotions.history(runtime.engine, family.name)),
    }


def _bring_rows(runtime: Runtime, family: Family) -> None:
    match family.data:
        case Series():
            run = finish(runtime.durable, runtime.durable.start("crawl", family.name, None, None))
            screen.say(crawl_sentence(revive(run.output, CrawlReport)))
        case Table():
            _import_sample(runtime, family)


def _import_sample(runtime: Runtime, family: Family) -> None:
    report = ingest.import_sample(runtime.engine, family, seed=SEED, now=datetime.now(UTC))
    if report is None:
        screen.say(f"{family.name}: no sample rows come with it; what was imported is used.")
        return
    screen.say(
        f"{family.name}: read {report.read} simulated rows: {report.new} new, {report.known} known, "
        f"{len(report.rejected)} rejected."
    )


def _served_by(settings: Settings, family: Family, version: str) -> dict[str, Any]:
    """Return a prediction as soon as `version` gives it; the last answer when it does not in time."""
    deadline = time.monotonic() + SERVED_SECONDS
    while True:
        try:
            answer: dict[str, Any] = ask(settings, family.name, json.dumps(family.example))
        except Unavailable:
            if time.monotonic() > deadline:
                raise
        else:
            if answer["model"]["version"] == version or time.monotonic() > deadline:
                return answer
        time.sleep(0.2)


def _show(outcomes: list[dict[str, Any]]) -> None:
    screen.out.rule("What happened", align="left")
    for outcome in outcomes:
        report: TrainReport = outcome["report"]
        family: Family = outcome["family"]
        scores = report.evaluation.scores
        metric = report.metric_name
        baselines = ", ".join(
            f"{who} {values[metric]:.4g}"
            for who, values in scores.items()
            if who not in ("model", "champion")
        )
        previous = (
            f"{scores['champion'][metric]:.4g} (version {outcome['before']})"
            if "champion" in scores
            else "none"
        )
        verdict = (
            f"version {report.version} promoted"
            if report.promoted
            else f"version {report.version} kept back"
        )
        screen.show_rows(
            family.name,
            ("what", "value"),
            [
                ("rows stored", outcome["rows"]),
                ("trials", report.trials),
                (f"{metric} of the model", f"{scores['model'][metric]:.4g} {family.unit}"),
                (f"{metric} of the baselines", baselines),
                (f"{metric} of the previous champion", previous),
                ("verdict", f"{verdict}: {report.verdict.reason}"),
                (f"PUT /predict/{family.route}", _short(outcome["answer"]["result"])),
                ("answered by version", outcome["answer"]["model"]["version"]),
            ],
            empty="",
        )


def _short(result: Any) -> str:
    text = json.dumps(result)
    return text if len(text) < 70 else f"{text[:66]} ..."
