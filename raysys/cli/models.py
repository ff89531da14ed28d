"""`raysys models`: versions, promotions and rollbacks."""

from __future__ import annotations

import getpass
import uuid
from datetime import UTC, datetime
from typing import Annotated

import typer

from raysys import families
from raysys.cli import screen
from raysys.cli.context import AsJson, FamilyName, Wait, known_family, opened
from raysys.cli.runs import finish
from raysys.pipelines import promote as promoting
from raysys.records import REASON_TAG, VERDICT_TAG, Act, Promotion
from raysys.store import decisions, promotions

app = typer.Typer(no_args_is_help=True, help="Model versions, promotions and rollbacks.")


def optional_family(name: str | None) -> str | None:
    """Return `name` when it is that of a family, and None for none."""
    return name if name is None else known_family(name)


OptionalFamily = Annotated[
    str | None,
    typer.Argument(help="A model family; all of them by default.", callback=optional_family),
]


@app.command("list")
def list_models(family: OptionalFamily = None, as_json: AsJson = False) -> None:
    """List the registered versions, newest first, with their aliases and scores."""
    with opened() as runtime:
        names = (family,) if family else families.names()
        versions = [version for name in names for version in runtime.registry.versions(name)]
    if as_json:
        screen.show_json(versions)
        return
    rows = [
        (
            v.family,
            v.version,
            v.aliases,
            v.created_at,
            v.tags.get(VERDICT_TAG, ""),
            v.tags.get(REASON_TAG, ""),
        )
        for v in versions
    ]
    screen.show_rows(
        "Model versions",
        ("family", "version", "aliases", "created (UTC)", "gate", "reason"),
        rows,
        empty="No model is registered yet. Train one: `raysys train FAMILY --wait`.",
    )


@app.command("promote")
def promote(
    family: FamilyName,
    version: Annotated[str, typer.Argument(help="The version that shall serve.")],
    reason: Annotated[str, typer.Option(help="Why, for the history.")] = "promoted by hand",
) -> None:
    """Make VERSION the champion: it serves within seconds, and no request is dropped."""
    with opened() as runtime:
        done = promoting.promote(
            runtime.engine,
            runtime.registry,
            family=family,
            version=version,
            actor=actor(),
            reason=reason,
            id=f"cli-{uuid.uuid4()}",
            report={},
            now=datetime.now(UTC),
        )
    screen.say(_sentence(done))


@app.command("canary")
def canary(
    family: FamilyName,
    version: Annotated[str, typer.Argument(help="The version to try.")],
    percent: Annotated[
        float, typer.Option(min=0, max=100, help="Share of the answers that are its own.")
    ] = 10,
    shadow: Annotated[
        float, typer.Option(min=0, max=100, help="Share of requests it sees without answering.")
    ] = 0,
    bake_minutes: Annotated[
        float, typer.Option(min=0.05, max=10080, help="How long it is tried.")
    ] = 10,
    wait: Wait = False,
) -> None:
    """Try VERSION beside the champion; it is promoted, or taken back as soon as it does badly."""
    with opened() as runtime:
        run = runtime.durable.start("canary", family, version, percent, shadow, bake_minutes * 60)
        screen.say(f"run {run}")
        if wait:
            report = finish(runtime.durable, run).output
            screen.say(
                f"{family}: version {version} was "
                f"{'promoted' if report['promoted'] else 'taken back'}: {report['reason']}"
            )


@app.command("rollback")
def rollback(
    family: FamilyName,
    reason: Annotated[str, typer.Option(help="Why, for the history.")] = "rolled back by hand",
) -> None:
    """Give the alias back to the champion before this one."""
    with opened() as runtime:
        done = promoting.rollback(
            runtime.engine,
            runtime.registry,
            family=family,
            actor=actor(),
            reason=reason,
            id=f"cli-{uuid.uuid4()}",
            now=datetime.now(UTC),
        )
    screen.say(_sentence(done))


@app.command("history")
def history(family: FamilyName, as_json: AsJson = False) -> None:
    """List every move of an alias and what the policy decided, newest first: when, what, by whom and why."""
    with opened() as runtime:
        moves = promotions.history(runtime.engine, family)
        acts = decisions.history(runtime.engine, family)
    both: list[Promotion | Act] = [*moves, *acts]
    story = sorted(both, key=lambda each: each.at, reverse=True)
    if as_json:
        screen.show_json(story)
        return
    screen.show_rows(
        f"Promotions of {family}, and decisions of its policy",
        ("at (UTC)", "action", "alias", "from", "to", "by", "reason"),
        [_told(each) for each in story],
        empty=f"No version of {family} was promoted yet.",
    )


def _told(each: Promotion | Act) -> tuple[object, ...]:
    if isinstance(each, Promotion):
        return (
            *(each.at, each.action, each.alias, each.from_version, each.to_version),
            *(each.actor, each.reason),
        )
    action = f"{each.action} (dry run)" if each.dry_run else each.action
    return (each.at, f"decided: {action}", "", "", "", "policy", each.reason)


def actor() -> str:
    """Return who runs this command, for the history."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user need not have a name
        return "cli"


def _sentence(move: Promotion) -> str:
    before = f" in place of version {move.from_version}" if move.from_version else ""
    return f"{move.family}: version {move.to_version} is the {move.alias}{before}."
