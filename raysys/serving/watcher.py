"""The actor that follows the aliases for the whole cluster, and its client in every replica."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from raysys import cluster, log
from raysys.errors import ModelRefused, NotFound, RaysysError, Unavailable
from raysys.records import LoadedVersion, Record
from raysys.registry import ROLLOUT_TAG, Registered, Registry
from raysys.serving import rollout as rollouts
from raysys.serving.config import served_families
from raysys.serving.offers import Offer
from raysys.serving.rollout import Rollout, Tried
from raysys.settings import Settings
from raysys.tokens import hook_key

WATCHER = "raysys-watcher"
TARGET = "raysys.serving.watcher:Watcher"
HOOK_PATH = "/hooks/registry/"
CALLS_A_REPLICA = 2  # every replica holds so many open
OTHER_CALLS = 32
POLL_SECONDS = 1.0
BREATH_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 15.0
FORGET_SECONDS = 90.0  # a replica says what it serves every 30 s at least
FIRST_POLL_SECONDS = 3.0
KEPT = 8


class Sighting(Record, frozen=True):
    """What the watcher knows of one family: aliases, why the champion is not offered, a trial."""

    family: str
    aliases: dict[str, str] = {}
    refused: str | None = None
    rollout: Rollout | None = None
    tried: Tried | None = None


class WatcherState(Record, frozen=True):
    """What the watcher knows: families, replicas, and when it last reached the registry."""

    families: list[Sighting]
    replicas: list[LoadedVersion]
    reachable: bool
    seconds_since_poll: float
    error: str | None = None


@dataclass
class _Shelf:
    """The bytes of the versions that were asked for last, as references into the object store."""

    entries: OrderedDict[tuple[str, str], tuple[str, Any]]

    def get(self, family: str, version: str) -> tuple[str, Any] | None:
        found = self.entries.get((family, version))
        if found is not None:
            self.entries.move_to_end((family, version))
        return found

    def put(self, family: str, version: str, sha256: str, ref: Any) -> None:
        self.entries[(family, version)] = (sha256, ref)
        while len(self.entries) > KEPT:
            self.entries.popitem(last=False)


class Watcher:
    """Polls the registry once a second for all families; replicas wait for changes in `next`.

    Lives in one detached actor (`raysys-watcher`). Nothing it knows is lost when it dies: the
    aliases are in the registry, and every replica says what it serves with each call.
    """

    def __init__(
        self, registry: Registry | None = None, keep: Callable[[bytes], Any] | None = None
    ) -> None:
        settings = Settings()
        log.configure(settings)
        self._registry = registry or Registry(settings.tracking_uri)
        root = settings.hook_root
        self._hook = f"{root}{HOOK_PATH}{hook_key(settings)}" if root else ""
        self._keep = keep or _put
        self._changed = threading.Condition()
        self._aliases: dict[str, dict[str, str]] | None = None
        self._rollouts: dict[str, Rollout] = {}
        self._tried: dict[str, dict[str, Tried]] = {}
        self._refused: dict[tuple[str, str], str] = {}
        self._seen: dict[str, tuple[float, LoadedVersion]] = {}
        self._shelf = _Shelf(OrderedDict())
        self._fetching = threading.Lock()
        self._polled_at = time.monotonic()
        self._error: str | None = None
        self._wake = threading.Event()
        threading.Thread(target=self._poll_forever, name="poll", daemon=True).start()

    # -- for replicas ------------------------------------------------------------------------------

    def next(
        self, state: LoadedVersion, known: str | None, wait_seconds: float
    ) -> tuple[str, str, Any] | None:
        """Wait until the champion of the state's family is not `known`.

        Returns its version, SHA-256 and a reference to its bytes; None when the time is over or
        there is no champion. Raises Unavailable while the registry was never reached.
        """
        self._seen[state.replica] = (time.monotonic(), state)
        if self._aliases is None:
            wait_seconds = max(wait_seconds, FIRST_POLL_SECONDS)
        deadline = time.monotonic() + wait_seconds
        while True:
            version = self._wait_for_change(state.family, known, deadline)
            if version is None:
                return None
            try:
                sha256, ref = self._bytes_of(state.family, version)
                return version, sha256, ref
            except ModelRefused as error:
                self._note_refusal(state.family, version, error)

    def version(self, family: str, version: str) -> tuple[str, str, Any]:
        """Return one version, champion or not; raises NotFound, ModelRefused or Unavailable."""
        sha256, ref = self._bytes_of(family, version)
        return version, sha256, ref

    def trial(
        self, replica: str, family: str, known: str | None, tried: Tried | None, wait_seconds: float
    ) -> tuple[Rollout | None, str, Any] | None:
        """Note what a replica `tried` and wait until the family's rollout is not `known`.

        Returns None when the time is over; else the rollout, the challenger's SHA-256 and a
        reference to its bytes, or an empty text and why there are none.
        """
        if known is not None and tried is not None and known in self._tried:
            self._tried[known][replica] = tried
        rollout = self._wait_for_rollout(family, known, time.monotonic() + wait_seconds)
        if (rollout.id if rollout else None) == known:
            return None
        if rollout is None:
            return None, "", ""
        try:
            return rollout, *self._bytes_of(family, rollout.version)
        except (ModelRefused, NotFound) as error:
            return rollout, "", error.message

    # -- for people --------------------------------------------------------------------------------

    def table(self) -> list[LoadedVersion]:
        """Return what each replica serves; one that was silent for 90 s is forgotten."""
        now = time.monotonic()
        for replica, (seen, _) in list(self._seen.items()):
            if now - seen > FORGET_SECONDS:
                self._seen.pop(replica, None)
        return [state for _, state in sorted(self._seen.values(), key=lambda s: s[1].replica)]

    def state(self) -> WatcherState:
        """Return all that the watcher knows."""
        aliases = self._aliases or {}
        sightings = [
            Sighting(
                family=family,
                aliases=found,
                refused=self._refused.get((family, found.get("champion", ""))),
                rollout=self._rollouts.get(family),
                tried=self._total(family),
            )
            for family, found in sorted(aliases.items())
        ]
        return WatcherState(
            families=sightings,
            replicas=self.table(),
            reachable=self._error is None and self._aliases is not None,
            seconds_since_poll=round(time.monotonic() - self._polled_at, 3),
            error=self._error,
        )

    def pid(self) -> int:
        """Return the id of the watcher's process."""
        return os.getpid()

    def poke(self) -> None:
        """Look at the registry now: an alias has just been moved."""
        self._wake.set()

    def tried(self, family: str, rollout: str) -> Tried | None:
        """Return what all replicas counted in a trial, or None for one that is not under way."""
        found = self._rollouts.get(family)
        return self._total(family) if found is not None and found.id == rollout else None

    # -- inside ------------------------------------------------------------------------------------

    def _wait_for_change(self, family: str, known: str | None, deadline: float) -> str | None:
        with self._changed:
            while True:
                version = self._offered(family)
                if version is not None and version != known:
                    return version
                left = deadline - time.monotonic()
                if left <= 0 or (self._error and self._aliases is None):
                    if self._aliases is None:
                        raise Unavailable(f"The registry was not reached yet: {self._error}")
                    return None
                self._changed.wait(left)

    def _wait_for_rollout(self, family: str, known: str | None, deadline: float) -> Rollout | None:
        with self._changed:
            while True:
                rollout = self._rollouts.get(family)
                left = deadline - time.monotonic()
                if (rollout.id if rollout else None) != known or left <= 0:
                    return rollout
                self._changed.wait(left)

    def _total(self, family: str) -> Tried | None:
        rollout = self._rollouts.get(family)
        return rollouts.total(list(self._tried[rollout.id].values())) if rollout else None

    def _offered(self, family: str) -> str | None:
        version = (self._aliases or {}).get(family, {}).get("champion")
        return None if version is None or (family, version) in self._refused else version

    def _bytes_of(self, family: str, version: str) -> tuple[str, Any]:
        found = self._shelf.get(family, version)
        if found is not None:
            return found
        wanted = self._registry.version(family, version)  # callers may name what does not exist
        with self._fetching:  # many replicas ask at once for what is downloaded once
            found = self._shelf.get(family, version)
            if found is None:
                found = (wanted.sha256, self._keep(self._registry.fetch(wanted)))
                self._shelf.put(family, version, *found)
            return found

    def _note_refusal(self, family: str, version: str, error: ModelRefused) -> None:
        self._refused[(family, version)] = error.message
        log.get("watcher").error(
            "model refused", family=family, version=version, reason=error.message
        )

    def _poll_forever(self) -> None:
        failures = 0
        while True:
            try:
                self._poll()
                failures = 0
                self._ask_to_be_told()
            except Exception as error:  # noqa: BLE001  the rim of the loop: the watcher goes on
                failures += 1
                self._note_failure(error)
            self._wake.wait(min(POLL_SECONDS * 2 ** min(failures, 6), LONGEST_PAUSE_SECONDS))
            time.sleep(BREATH_SECONDS)  # however often somebody pokes
            self._wake.clear()

    def _ask_to_be_told(self) -> None:
        if not self._hook:
            return
        url, self._hook = self._hook, ""  # once: without it, a change is seen a second later
        try:
            self._registry.tell(url)
        except RaysysError as error:
            log.get("watcher").info("MLflow will not tell of moved aliases", error=error.message)

    def _note_failure(self, error: Exception) -> None:
        known = isinstance(error, RaysysError)
        if self._error is None:
            log.get("watcher").warning("poll failed", error=str(error), exc_info=not known)
        with self._changed:
            self._error = str(error) if known else f"{type(error).__name__}: {error}"
            self._changed.notify_all()

    def _poll(self) -> None:
        registered = self._registry.families()
        aliases = {family: found.aliases for family, found in registered.items()}
        tried = {family: r for family, found in registered.items() if (r := _rollout(found))}
        self._polled_at, self._error = time.monotonic(), None
        if aliases == self._aliases and tried == self._rollouts:
            return
        with self._changed:
            before, self._aliases = self._aliases or {}, aliases
            self._tried = {r.id: self._tried.get(r.id, {}) for r in tried.values()}
            self._rollouts = tried
            # An alias that was moved away and back is a wish to try again.
            self._refused = {
                key: reason
                for key, reason in self._refused.items()
                if aliases.get(key[0]) == before.get(key[0])
            }
            self._changed.notify_all()


def _rollout(found: Registered) -> Rollout | None:
    rollout = rollouts.read(found.tags.get(ROLLOUT_TAG))
    challenger = found.aliases.get("challenger")
    # The tag outlives the alias: what it says holds only for the version that the alias names.
    tried = rollout is not None and challenger == rollout.version != found.aliases.get("champion")
    return rollout if tried else None


class WatcherOffers:
    """The offers of the cluster's watcher, for a replica's event loop."""

    def __init__(self) -> None:
        self._actor: Any = None

    async def next(
        self, state: LoadedVersion, known: str | None, wait_seconds: float
    ) -> Offer | None:
        """See `Offers.next`."""
        found = await self._call("next", state, known, wait_seconds)
        return None if found is None else await self._offer(state.family, found)

    async def version(self, family: str, version: str) -> Offer:
        """See `Offers.version`."""
        return await self._offer(family, await self._call("version", family, version))

    async def trial(
        self, replica: str, family: str, known: str | None, tried: Tried | None, wait_seconds: float
    ) -> tuple[Rollout | None, Offer | str] | None:
        """See `Offers.trial`."""
        found = await self._call("trial", replica, family, known, tried, wait_seconds)
        if found is None:
            return None
        rollout, sha256, ref = found
        if not sha256:
            return rollout, ref
        return rollout, await self._offer(family, (rollout.version, sha256, ref))

    async def _offer(self, family: str, found: tuple[str, str, Any]) -> Offer:
        version, sha256, ref = found
        data = await _translated(ref)
        return Offer(family=family, version=version, sha256=sha256, data=bytes(data))

    async def _call(self, method: str, *args: Any) -> Any:
        if self._actor is None:
            # This asks the cluster's head, and may block while that is away.
            self._actor = (await asyncio.to_thread(ensure_watcher)).actor
        try:
            return await _translated(self._actor.call.remote(method, args, {}))
        except Unavailable:
            self._actor = None  # it may have died for good, and have a successor of its name
            raise


async def _translated(ref: Any) -> Any:
    import ray

    try:
        return await ref
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, (NotFound, ModelRefused, Unavailable)):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise Unavailable(f"The watcher does not answer: {type(error).__name__}.") from error


def _put(data: bytes) -> Any:
    import ray

    return ray.put(data)


def ensure_watcher() -> cluster.Handle:
    """Return the cluster's watcher; it is started when it is not there."""
    settings = Settings()
    return cluster.ensure_actor(
        WATCHER,
        TARGET,
        resource=settings.service_resource,
        max_concurrency=calls_at_once(settings),
    )


def calls_at_once(settings: Settings) -> int:
    """Return how many calls the watcher takes at once: each is a thread, and costs memory when it is first used."""
    replicas = max(settings.max_replicas, settings.min_replicas)
    families = len(served_families(settings))
    return CALLS_A_REPLICA * replicas * families + OTHER_CALLS


def poke() -> None:
    """Let the watcher look at the registry now; without one there is nothing to hurry."""
    handle = cluster.find_actor(WATCHER)
    if handle is not None:
        handle.actor.call.remote("poke", (), {})


def watcher_state() -> WatcherState:
    """Ask the watcher what it knows; raises Unavailable when it is away."""
    handle = cluster.find_actor(WATCHER)
    if handle is None:
        raise Unavailable("The watcher does not run; the gateway starts it again.")
    return cast("WatcherState", handle.call("state", timeout_seconds=5))
