"""The errors of raysys: one base class and its children; no error of a vendor is here."""

from __future__ import annotations

from typing import Any


class RaysysError(Exception):
    """An error with one message for people and optional fields for machines.

    The message says what failed, for which id, and what to do. The fields survive pickling, so that an error raised in
    a Ray task reaches its caller whole.
    """

    status = 500

    def __init__(self, message: str, /, **fields: Any) -> None:
        super().__init__(message)
        self.fields = fields

    @property
    def message(self) -> str:
        """The sentence for people."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.fields)


def _rebuild(cls: type[RaysysError], message: str, fields: dict[str, Any]) -> RaysysError:
    return cls(message, **fields)


class InvalidInput(RaysysError):
    """What a user gave is wrong; `issues` holds one `{"loc": [...], "reason": str}` a fault."""

    status = 422

    @property
    def issues(self) -> list[dict[str, Any]]:
        """Every fault that was found."""
        return list(self.fields.get("issues", []))


class NotFound(RaysysError):
    """The named thing does not exist."""

    status = 404


class Conflict(RaysysError):
    """The state of things forbids it, or somebody else was first."""

    status = 409


class Forbidden(RaysysError):
    """A token is missing or wrong."""

    status = 403


class SourceError(RaysysError):
    """A source of data refused or failed for good; `code` is the source's own code."""

    status = 502


class SourceBusy(SourceError):
    """A source failed in a way that passes; asking again later is right."""


class QuotaExhausted(SourceError):
    """A source's quota for the day is used up; the crawl stops, and the next one goes on."""

    status = 429


class Unavailable(RaysysError):
    """A service that raysys needs (database, MLflow, Ray, a model) does not answer now."""

    status = 503


class WorkflowError(RaysysError):
    """A workflow or one of its steps failed."""


class ModelRefused(RaysysError):
    """A model version failed its hash, its signature, its warm-up or its gate."""

    status = 409
