"""What commands share: the opened runtime, the arguments and options that recur."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from raysys import families, log
from raysys.errors import NotFound
from raysys.runtime import Runtime
from raysys.settings import Settings


@contextmanager
def opened(settings: Settings | None = None) -> Iterator[Runtime]:
    """Yield the runtime of the settings in force; what it opened is closed at the end."""
    settings = settings or Settings()
    log.configure(settings)
    with Runtime(settings) as runtime:
        yield runtime


def known_family(name: str) -> str:
    """Return `name`, or end with wrong usage and the names that exist."""
    try:
        return families.get(name).name
    except NotFound as error:
        raise typer.BadParameter(error.message) from error


FamilyName = Annotated[
    str, typer.Argument(help="A model family.", callback=known_family, metavar="FAMILY")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Wait = Annotated[
    bool, typer.Option("--wait", help="Show progress until it ends; exit 0 only when it succeeded.")
]
