"""Whether the families can answer: asked of their replicas, told by the routes of health."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from raysys.errors import NotFound, RaysysError, Unavailable
from raysys.records import LoadedVersion


class Asked(Protocol):
    """Something that tells what a family serves."""

    async def status(self) -> LoadedVersion:
        """Return it; raises Unavailable."""


class Health:
    """The readiness of the families behind some doors."""

    def __init__(self, doors: dict[str, Any]) -> None:
        self._doors: dict[str, Asked] = doors

    async def versions(self, names: list[str] | None = None) -> dict[str, str]:
        """Return the version that each family serves.

        Raises Unavailable that names every family without a model, and NotFound for an unknown one.
        """
        chosen = names or list(self._doors)
        unknown = [name for name in chosen if name not in self._doors]
        if unknown:
            raise NotFound(f"There is no family {unknown[0][:100]!r}. Served: {self._known}.")
        found = await asyncio.gather(*(self._version(name) for name in chosen))
        missing = [
            (name, why) for name, (version, why) in zip(chosen, found, strict=True) if not version
        ]
        if missing:
            raise Unavailable(
                "Not ready: " + "; ".join(f"{name} ({why})" for name, why in missing) + ".",
                missing=[name for name, _ in missing],
            )
        return {name: version for name, (version, _) in zip(chosen, found, strict=True)}

    @property
    def _known(self) -> str:
        return ", ".join(sorted(self._doors))

    async def _version(self, name: str) -> tuple[str, str]:
        try:
            state = await self._doors[name].status()
        except RaysysError as error:
            return "", error.message
        return state.version, state.refused or "no model is loaded"
