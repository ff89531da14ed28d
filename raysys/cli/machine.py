"""`raysys up`, `down`, `status` and `doctor`: the processes of this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from raysys import log
from raysys.cli import screen
from raysys.cli.context import AsJson
from raysys.laptop import Stack, doctor
from raysys.settings import Settings


def up() -> None:
    """Start everything on this machine and wait until it is ready; harmless when it runs already."""
    settings = Settings()
    log.configure(settings)
    with screen.working("Starting") as notify:
        Stack(settings, notify).up()
    for name, url in Stack(settings).urls().items():
        screen.say(f"{name:12} {url}")


def down() -> None:
    """End every process that `up` started, and theirs."""
    with screen.working("Ending every process"):
        count = Stack(Settings()).down()
    screen.say(f"Ended {count} processes." if count else "Nothing was running.")


def status(as_json: AsJson = False) -> None:
    """Show what runs, where, and which model versions serve; exit 1 when something is down."""
    state = Stack(Settings()).status()
    if as_json:
        screen.show_json(state)
    else:
        _show(state)
    if not state["ready"]:
        raise typer.Exit(1)


def _show(state: dict[str, Any]) -> None:
    parts = [(name, state[name]) for name in ("database", "mlflow", "ray")]
    for group in ("applications", "actors"):
        parts += [(name, value.lower()) for name, value in state[group].items()]
    screen.show_rows("Parts", ("part", "state"), parts, empty="")
    screen.show_rows(
        "Models",
        ("family", "version", "replica", "refused"),
        [(m["family"], m["version"], m["replica"], m["refused"]) for m in state["served"]],
        empty="No model is served yet: `raysys demo`, or `raysys train FAMILY --wait`.",
    )
    for name, url in state["urls"].items():
        screen.say(f"{name:12} {url}")
    for name, command in state["monitoring"].items():
        screen.say(f"{name:12} {command}")


def show_doctor(
    show_settings: Annotated[
        bool, typer.Option("--settings", help="Print the settings in force, secrets masked.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong on this machine and how to mend it; exit 1 when something is."""
    settings = Settings()
    if show_settings:
        screen.show_json(doctor.masked(settings))
        return
    findings = doctor.examine(settings)
    if as_json:
        screen.show_json([f._asdict() for f in findings])
    else:
        rows = [
            ("ok" if f.ok else "wrong", f.what, f.found, "" if f.ok else f.remedy) for f in findings
        ]
        screen.show_rows("This machine", ("", "check", "found", "what to do"), rows, empty="")
    if not all(f.ok for f in findings):
        raise typer.Exit(1)
