"""What replicas are offered: one version with its bytes; and where the last good one is kept."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Protocol

import msgspec

from raysys.records import LoadedVersion, Record
from raysys.serving.rollout import Rollout, Tried


class Offer(Record, frozen=True):
    """A version of a family's model with its bytes, whose hash was checked."""

    family: str
    version: str
    sha256: str
    data: bytes


class Offers(Protocol):
    """Where a replica learns which version to serve. Raises Unavailable when nobody answers."""

    async def next(
        self, state: LoadedVersion, known: str | None, wait_seconds: float
    ) -> Offer | None:
        """Tell `state` and wait until the champion of its family is not `known`.

        Returns None when that did not happen in time, or the family has no champion.
        """

    async def version(self, family: str, version: str) -> Offer:
        """Return one version, champion or not; raises NotFound or ModelRefused."""

    async def trial(
        self, replica: str, family: str, known: str | None, tried: Tried | None, wait_seconds: float
    ) -> tuple[Rollout | None, Offer | str] | None:
        """Tell what was `tried` and wait until the family's rollout is not `known`.

        Returns None when that did not happen in time; else the rollout, or None for the end of one,
        and its challenger, or why there is none to load.
        """


class LastGood:
    """The last version of each family that a replica of this machine served, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, offer: Offer) -> None:
        """Remember `offer` for its family, whole or not at all."""
        kept = self._read(offer.family)
        if kept is not None and (kept.version, kept.sha256) == (offer.version, offer.sha256):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=f".{offer.family}-")
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.msgpack.encode(offer))
        Path(name).replace(self._path(offer.family))

    def recall(self, family: str) -> Offer | None:
        """Return what was kept, or None where there is nothing or the file is damaged."""
        offer = self._read(family)
        if offer is None or hashlib.sha256(offer.data).hexdigest() != offer.sha256:
            return None
        return offer

    def _read(self, family: str) -> Offer | None:
        try:
            return msgspec.msgpack.decode(self._path(family).read_bytes(), type=Offer)
        except (OSError, msgspec.MsgspecError):
            return None

    def _path(self, family: str) -> Path:
        return self._folder / f"{family}.model"
