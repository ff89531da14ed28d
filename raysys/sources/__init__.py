"""The door to where data comes from: opens the source that settings name; stores no rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from raysys.settings import Settings
from raysys.sources.base import HourlySource


def _utc_now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def open_source(
    settings: Settings, clock: Callable[[], datetime] = _utc_now
) -> Iterator[HourlySource]:
    """Yield the source that `settings.atmos_source` names, and close it."""
    with _OPENERS[settings.atmos_source](settings, clock) as source:
        yield source


def series_name(settings: Settings) -> str:
    """Return the name of the series that this source fills, without asking it."""
    if settings.atmos_source == "open-meteo":
        return f"open-meteo-{settings.atmos_latitude:.4f}-{settings.atmos_longitude:.4f}"
    return f"{settings.atmos_source}-{settings.atmos_station}"


@contextmanager
def _open_kma(settings: Settings, _clock: Callable[[], datetime]) -> Iterator[HourlySource]:
    from raysys.sources.kma import Kma

    source = Kma(settings)
    try:
        yield source
    finally:
        source.close()


@contextmanager
def _open_open_meteo(settings: Settings, _clock: Callable[[], datetime]) -> Iterator[HourlySource]:
    from raysys.sources.open_meteo import OpenMeteo

    source = OpenMeteo(settings)
    try:
        yield source
    finally:
        source.close()


@contextmanager
def _open_sample(settings: Settings, clock: Callable[[], datetime]) -> Iterator[HourlySource]:
    from raysys.sources.sample import open_sample

    with open_sample(settings, clock) as source:
        yield source


_OPENERS = {"kma": _open_kma, "open-meteo": _open_open_meteo, "sample": _open_sample}
