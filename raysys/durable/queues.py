"""Which queue a run waits in: one for each workflow and family, so that a family never waits for another."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from raysys import families

POLL_SECONDS = 0.8  # a run starts this late at most; each poll costs about a millisecond of CPU
# Workflows whose names begin so are the engine's own, and lists leave them out.
INTERNAL = "raysys."
CALL = "call"  # the workflow that runs any other, found in the worker by its import path


def family_of(args: Sequence[Any]) -> str | None:
    """Return the family that a run is about: its first argument, when a family is called that."""
    first = args[0] if args else None
    return first if isinstance(first, str) and first in families.names() else None


def queue_of(name: str, args: Sequence[Any]) -> str:
    """Return the name of the queue for a run of workflow `name` with `args`."""
    family = family_of(args)
    return f"{name}.{family}" if family else name


def new_id(name: str, args: Sequence[Any]) -> str:
    """Return an id for a new run that people can read: workflow, family, second, four random digits."""
    parts = [name, *([family] if (family := family_of(args)) else [])]
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    return "-".join([*parts, moment, secrets.token_hex(2)])
