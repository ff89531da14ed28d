"""What the workflow database holds: JSON of at most 100 kB, and errors by class, message and fields; no engine here."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from raysys import errors
from raysys.errors import RaysysError, WorkflowError
from raysys.records import plain

LIMIT_BYTES = 100_000
ERROR_MARK = "$error"


def outcome(value: Any, of: str) -> Any:
    """Return `value` as plain JSON data; raises WorkflowError when it is none, or over 100 kB.

    `of` says whose value it is, for the message.
    """
    try:
        text = json.dumps(plain(value))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise WorkflowError(
            f"{of} gave a {type(value).__name__}, which is not JSON ({error}). Return numbers, text, lists, dicts or "
            "records; write everything else to the artifact store and return its URI.",
            of=of,
        ) from error
    size = len(text.encode())
    if size > LIMIT_BYTES:
        raise WorkflowError(
            f"{of} gave {size:,} bytes; at most {LIMIT_BYTES:,} go through the database. "
            "Write the data to the artifact store and return its URI.",
            of=of,
            size_bytes=size,
        )
    return json.loads(text)  # what a replay reads: lists for tuples, text for keys


def pack(error: BaseException) -> dict[str, Any]:
    """Return `error` as plain data, from which `unpack` makes an error of the same class."""
    fields = dict(error.fields) if isinstance(error, RaysysError) else {}
    message = error.message if isinstance(error, RaysysError) else str(error)
    return {"type": type(error).__name__, "message": message, "fields": _safe(fields)}


def unpack(packed: dict[str, Any]) -> RaysysError:
    """Return the error that `pack` described; a class that is not of raysys becomes WorkflowError."""
    kind = getattr(errors, packed["type"], None)
    fields = dict(packed.get("fields") or {})
    if isinstance(kind, type) and issubclass(kind, RaysysError):
        return kind(packed["message"], **fields)
    return WorkflowError(packed["message"], **{"error_type": packed["type"], **fields})


def translated(error: Exception, of: str) -> RaysysError:
    """Return `error` as an error of raysys, so that a replay raises the same class as the first run did."""
    if isinstance(error, RaysysError):
        return error
    return WorkflowError(
        f"{of} failed: {type(error).__name__}: {error}", error_type=type(error).__name__, of=of
    )


def _safe(fields: dict[str, Any]) -> dict[str, Any]:
    return {str(key): _first_that_works(value) for key, value in fields.items()}


def _first_that_works(value: Any) -> Any:
    ways: tuple[Callable[[Any], Any], ...] = (plain, str)
    for way in ways:
        try:
            ready = way(value)
            json.dumps(ready)
        except (TypeError, ValueError, NotImplementedError):
            continue
        return ready
    return type(value).__name__
