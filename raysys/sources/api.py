"""HTTP as sources need it: retries, errors in our terms, and secrets that no text ever holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import quote
from urllib.request import getproxies, proxy_bypass

import httpx
import stamina

from raysys.errors import QuotaExhausted, SourceBusy, SourceError
from raysys.settings import Settings

T = TypeVar("T")
LONGEST_PAUSE_SECONDS = 30.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Api:
    """One HTTP API that is asked by GET. `secrets` are query parameters that only the wire sees."""

    def __init__(
        self,
        name: str,
        base_url: str,
        settings: Settings,
        *,
        secrets: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.name = name
        self._secrets = dict(secrets or {})
        self._attempts = settings.source_attempts
        self._pause_seconds = settings.source_backoff_seconds
        self._timeout_seconds = settings.source_timeout_seconds
        self._client = httpx.Client(
            base_url=base_url,
            timeout=settings.source_timeout_seconds,
            transport=_Signing(transport or _transport(base_url), self._secrets),
        )

    def ask(
        self, path: str, query: Mapping[str, str | int], read: Callable[[httpx.Response], T]
    ) -> T:
        """Return what `read` makes of the answer; as long as that is busy, ask again."""
        for attempt in stamina.retry_context(
            on=SourceBusy,
            attempts=self._attempts,
            timeout=None,
            wait_initial=self._pause_seconds,
            wait_max=LONGEST_PAUSE_SECONDS,
            wait_jitter=self._pause_seconds,
        ):
            with attempt:
                return read(self._get(path, query))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _get(self, path: str, query: Mapping[str, str | int]) -> httpx.Response:
        try:
            return self._client.get(path, params=dict(query))
        except httpx.TimeoutException as error:
            raise self.busy(f"no answer within {self._timeout_seconds:g} s", "timeout") from error
        except httpx.UnsupportedProtocol as error:
            raise self.refused("its base URL is no http(s) address", "url") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise self.busy(f"the connection failed: {error}", "connection") from error

    def check_status(self, response: httpx.Response) -> None:
        """Raise what the HTTP status means, unless it is 200."""
        status = response.status_code
        if status == httpx.codes.TOO_MANY_REQUESTS:
            raise self.exhausted(f"HTTP {status}", str(status))
        if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.REQUEST_TIMEOUT:
            raise self.busy(f"HTTP {status}", str(status))
        if status != httpx.codes.OK:
            raise self.refused(f"HTTP {status}", str(status))

    def busy(self, seen: str, code: str) -> SourceBusy:
        """Return the error for a failure that passes."""
        message = f"{self.name} failed for now: {self._masked(seen)}. The next crawl asks again."
        return SourceBusy(message, code=code, source=self.name)

    def exhausted(self, seen: str, code: str) -> QuotaExhausted:
        """Return the error for a quota that is used up."""
        message = f"{self.name} gives no more today: its quota is used up ({self._masked(seen)})."
        return QuotaExhausted(f"{message} Crawl again tomorrow.", code=code, source=self.name)

    def refused(self, seen: str, code: str, then: str = "") -> SourceError:
        """Return the error for a refusal that stays; `then` says what to do."""
        message = f"{self.name} refused: {self._masked(seen)}. {then}".strip()
        return SourceError(message, code=code, source=self.name)

    def _masked(self, text: str) -> str:
        """Take the secrets out of `text`: a server may repeat what it was asked."""
        for secret in filter(None, self._secrets.values()):
            text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
        return text

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _transport(base_url: str) -> httpx.HTTPTransport:
    """Return a transport that goes through the proxy of the environment, but never to this machine.

    httpx reads the environment only for transports of its own making.
    """
    url = httpx.URL(base_url)
    direct = url.host in LOOPBACK or bool(proxy_bypass(url.host))
    proxy = None if direct else getproxies().get(url.scheme)
    return httpx.HTTPTransport(verify=url.scheme == "https", proxy=proxy)


class _Signing(httpx.BaseTransport):
    """Adds the secrets to a copy of the request, below where httpx logs URLs and makes errors."""

    def __init__(self, inner: httpx.BaseTransport, secrets: dict[str, str]) -> None:
        self._inner = inner
        self._secrets = secrets

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url.copy_merge_params(self._secrets) if self._secrets else request.url
        return self._inner.handle_request(
            httpx.Request(
                request.method,
                url,
                headers=request.headers,
                stream=request.stream,
                extensions=request.extensions,
            )
        )

    def close(self) -> None:
        self._inner.close()
