"""Who may predict: keys of callers, each with a rate; nobody needs one where none is set."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from deployments.http import HttpError
from raysys.errors import InvalidInput

HEADER = b"x-api-key"
CHALLENGE = ((b"www-authenticate", b'ApiKey header="X-API-Key"'),)


class Bucket:
    """Lets `per_second` requests through each second, and as many at once after a pause."""

    def __init__(self, per_second: float, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._clock = clock
        self._left, self._at = max(per_second, 1.0), clock()

    def take(self) -> float:
        """Take one; return 0, or the seconds after which there is one again."""
        now = self._clock()
        self._left = min(
            max(self._per_second, 1.0), self._left + (now - self._at) * self._per_second
        )
        self._at = now
        if self._left < 1.0:
            return (1.0 - self._left) / self._per_second
        self._left -= 1.0
        return 0.0


class Keys:
    """The keys of `predict_keys`, such as `shop=KEY,test=KEY@10`: at most ten requests a second for the second.

    A rate holds for each replica. Keys are kept as hashes, so that a comparison tells nothing.
    """

    def __init__(self, text: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets: dict[bytes, Bucket | None] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, rest = part.partition("=")
            key, _, rate = rest.partition("@")
            if not name or not key or (rate and not rate.replace(".", "", 1).isdigit()):
                raise InvalidInput(f"predict_keys: write NAME=KEY or NAME=KEY@RATE for {name!r}.")
            limit = Bucket(float(rate), clock) if rate else None
            self._buckets[_hash(key.encode())] = limit

    def __bool__(self) -> bool:
        return bool(self._buckets)

    def check(self, headers: dict[bytes, bytes]) -> None:
        """Raise HttpError 401 without a key, 403 with a wrong one, 429 for one that asks too often."""
        given = headers.get(HEADER)
        if given is None:
            raise HttpError(401, "Send your key as X-API-Key.", CHALLENGE)
        hashed = _hash(given)
        if hashed not in self._buckets:
            raise HttpError(403, "The key is not one of this server.")
        limit = self._buckets[hashed]
        wait = limit.take() if limit else 0.0
        if wait:
            after = b"%d" % max(1, round(wait + 0.5))
            raise HttpError(429, "This key asks too often.", ((b"retry-after", after),))


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
