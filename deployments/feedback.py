"""What callers of /feedback send: the truth of predictions, kept at once; it is joined elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from starlette.concurrency import run_in_threadpool

from deployments.admin import Office
from deployments.http import Request, Response, answer, expect_json, expect_method
from deployments.keys import Keys
from deployments.rows import Fault, Reader, invalid
from raysys.families.base import Family, Series
from raysys.records import Feedback
from raysys.store import feedback

SOURCE = "api"
MOST = 1_000  # pieces of one request, and values of one piece

Name = Annotated[
    str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")
]


class Truth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one prediction should have said.

    It is named by the `request_id` of its answer (header X-Request-ID) or by the `key` that came with its request
    (header X-Prediction-Key), and by its `row` where the request had many. `value` is short for a list of one;
    null in `values` stands for what is not known yet.
    """

    request_id: Name | None = None
    key: Name | None = None
    row: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    value: float | None = None
    values: Annotated[list[float | None], msgspec.Meta(min_length=1, max_length=MOST)] | None = None


class Desk:
    """Takes in the truth that is sent for the families of an office."""

    def __init__(self, office: Office, keys: Keys | None = None) -> None:
        self._office = office
        self._keys = keys
        self._reader = Reader(Truth, many=True)

    async def answer(self, request: Request, name: str) -> Response:
        """Keep what a request says of the family `name`, and tell how much of it was new."""
        if self._keys is not None:
            self._keys.check(request.headers)
        family = self._office.family(name)
        expect_method(request, "POST")
        expect_json(request)
        truths, many = self._reader.read(request.body)
        _check(family, truths, many)
        said = [_said(truth) for truth in truths]
        new, known = await run_in_threadpool(self._keep, family, said)
        told = {"family": family.name, "received": len(said), "new": new, "known": known}
        return answer(told, 202)

    def _keep(self, family: Family, said: list[Feedback]) -> tuple[int, int]:
        now = datetime.now(UTC)
        return feedback.add(self._office.engine, family.name, said, source=SOURCE, now=now)


def _said(truth: Truth) -> Feedback:
    values = [truth.value] if truth.values is None else truth.values
    return Feedback(values=values, request_id=truth.request_id, key=truth.key, row=truth.row)


def _check(family: Family, truths: list[Truth], many: bool) -> None:
    """Raise InvalidInput with every fault that lies between fields."""
    if len(truths) > MOST:
        raise invalid([((), f"must hold {MOST} pieces at most, and holds {len(truths)}")])
    found = [
        ((place, *loc) if many else loc, reason)
        for place, truth in enumerate(truths)
        for loc, reason in _faults(family, truth)
    ]
    if found:
        raise invalid(found)


def _faults(family: Family, truth: Truth) -> list[Fault]:
    found: list[Fault] = []
    if (truth.request_id is None) == (truth.key is None):
        found.append((("request_id",), "give either request_id or key"))
    if (truth.value is None) == (truth.values is None):
        found.append((("values",), "give either value or values"))
    if isinstance(family.data, Series) and len(truth.values or ()) > family.data.horizon:
        found.append((("values",), f"must hold {family.data.horizon} values at most"))
    return found
