"""The catalogue of the installed families, found through the entry points `raysys.families`."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from raysys.errors import NotFound
from raysys.families.base import Family

GROUP = "raysys.families"


@cache
def names() -> tuple[str, ...]:
    """Return the names of all installed families, in alphabetical order."""
    return tuple(sorted(point.name for point in entry_points(group=GROUP)))


@cache
def get(name: str) -> Family:
    """Return the family called `name`; raises NotFound with the names that exist."""
    for point in entry_points(group=GROUP):
        if point.name == name:
            family: Family = point.load()()
            return family
    raise NotFound(f"There is no family {name!r}. Installed: {', '.join(names())}.", family=name)
