"""`raysys backup` and `raysys restore`: all that a home keeps, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raysys.cli import screen
from raysys.cli.context import AsJson
from raysys.settings import Settings

File = Annotated[Path, typer.Argument(help="The file of the backup.", dir_okay=False)]


def backup(file: File, as_json: AsJson = False) -> None:
    """Write databases, models and snapshots into one file, while everything runs; tokens are not in it."""
    from raysys.laptop import backup as archive

    with screen.working("Backing up") as notify:
        manifest = archive.backup(Settings(), file, notify)
    if as_json:
        screen.show_json(manifest)
        return
    screen.say(f"{file}: {file.stat().st_size / 2**20:.1f} MB")
    for what in manifest.left_out:
        screen.note(f"not in it: {what}")


def restore(
    file: File,
    replace: Annotated[
        bool, typer.Option("--replace", help="Lose what is kept now, where there is something.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make everything what it was when a backup was written; nothing may run meanwhile."""
    from raysys.laptop import backup as archive

    with screen.working("Restoring") as notify:
        manifest = archive.restore(Settings(), file, replace=replace, notify=notify)
    if as_json:
        screen.show_json(manifest)
        return
    screen.say(f"Restored what was kept at {manifest.at:%Y-%m-%d %H:%M:%S} UTC. Now: raysys up")
