"""What a family's replica answers, by either protocol, as plain values; no ASGI and no Ray."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec

from deployments.http import (
    REQUEST_ID,
    TRACE,
    Request,
    Response,
    answer,
    expect_json,
    expect_method,
    expect_plain,
    problem_of,
)
from deployments.keys import Keys
from deployments.open_inference import Codec, TensorSpec, output_tensor
from deployments.rows import RowReader
from raysys.errors import InvalidInput, NotFound, Unavailable
from raysys.families.base import Array, Family, Series
from raysys.serving.follower import Follower
from raysys.serving.loader import LoadedModel, example_rows
from raysys.serving.prediction_log import Entry, PredictionLog
from raysys.serving.request_log import RequestLog
from raysys.serving.tally import Tally
from raysys.serving.trial import TrialFollower
from raysys.tracing import Tracer

PLATFORM = "onnxruntime_onnx"
STICKY = b"x-session-id"  # its callers get the same model while a challenger is tried
KEY = b"x-prediction-key"  # the caller's own name of a request, by which its truth is sent later
V2_PATH = re.compile(
    r"/v2/models/[^/]+(?:/versions/(?P<version>[^/]+))?(?:/(?P<verb>ready|infer))?/?"
)


class Dataplane:
    """Answers the requests of one family with the model that its follower keeps."""

    def __init__(
        self,
        family: Family,
        follower: Follower,
        tally: Tally | None = None,
        *,
        trials: TrialFollower | None = None,
        log: PredictionLog | None = None,
        keys: Keys | None = None,
        requests: RequestLog | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._family = family
        self._follower = follower
        self._slot = follower.slot
        self._tally = tally
        self._trials = trials
        self._log = log
        self._keys = keys
        self._requests = requests
        self._tracer = tracer
        self._reader = RowReader(family)
        self._codec = Codec(family)

    async def answer(self, request: Request) -> Response:
        """Return the answer to any request for this family; never raises."""
        if self._tracer is not None:
            return await self._traced(self._tracer, request)
        return await self._counted(request)

    async def _traced(self, tracer: Tracer, request: Request) -> Response:
        parent = request.headers.get(TRACE, b"").decode("latin-1")
        with tracer.span(f"predict {self._family.name}", parent=parent, server=True) as span:
            response = await self._counted(request)
            span.set_attributes(
                {
                    "http.request.method": request.method,
                    "http.response.status_code": response.status,
                    "raysys.family": self._family.name,
                    "raysys.request_id": _request_id(request),
                }
            )
        return response

    async def _counted(self, request: Request) -> Response:
        tally = self._tally
        if tally is None:
            return await self._answered(request)
        started = time.perf_counter()
        tally.ongoing += 1
        try:
            response = await self._answered(request)
        finally:
            tally.ongoing -= 1
        tally.count(response.status, time.perf_counter() - started)
        return response

    async def _answered(self, request: Request) -> Response:
        try:
            return await self._route(request)
        except Exception as error:  # noqa: BLE001  the rim: whatever comes in, the replica goes on
            response = problem_of(error, request.path, request.headers)
        if self._requests is not None:
            self._requests.refused(_request_id(request), response.status)
        return response

    async def _route(self, request: Request) -> Response:
        if self._keys is not None:
            self._keys.check(request.headers)
        if request.path.startswith("/v2/"):
            return await self._v2(request)
        expect_method(request, "POST", "PUT")
        expect_json(request)
        model = await self._model(_query_version(request.query))
        return self._predict(model, request)

    def _predict(self, model: LoadedModel, request: Request) -> Response:
        rows, many = self._reader.read(request.body)
        model, answers = self._run(model, rows, request)
        result = msgspec.json.encode(answers if many else answers[0])
        return Response(200, b'{"result":%b,"model":%b,"error":null}' % (result, _named(model)))

    async def _v2(self, request: Request) -> Response:
        match = V2_PATH.fullmatch(request.path)
        if match is None:
            raise NotFound(f"There is nothing at {request.path}.")
        verb = match["verb"]
        expect_method(request, "POST" if verb == "infer" else "GET")
        model = await self._model(match["version"])
        if verb == "infer":
            return self._infer(model, request)
        if verb == "ready":
            return answer({"name": model.family, "ready": True})
        return answer(self._metadata(model))

    def _infer(self, model: LoadedModel, request: Request) -> Response:
        expect_plain(request)
        inference, rows = self._codec.read(request)
        model, answers = self._run(model, rows, request)
        return self._codec.write(inference, answers, model.family, model.version)

    def _metadata(self, model: LoadedModel) -> dict[str, Any]:
        answers = self._family.decode(model.run(example_rows(self._family)))
        array, _ = output_tensor(answers)
        shape = [-1] if array is None else [-1, *array.shape[1:]]
        output = TensorSpec("result", "BYTES" if array is None else "FP32", shape)
        return {
            "name": model.family,
            "versions": [model.version],
            "platform": PLATFORM,
            "inputs": self._codec.inputs,
            "outputs": [output],
        }

    async def _model(self, version: str | None) -> LoadedModel:
        current = self._slot.current
        if version is not None and (current is None or current.version != version):
            return await self._follower.version(version)
        if current is None:
            raise Unavailable(no_model(self._family.name, self._slot.refused))
        return current

    def _run(
        self, model: LoadedModel, rows: list[Any], request: Request
    ) -> tuple[LoadedModel, list[Any]]:
        started = time.perf_counter()
        anchor = self._anchor(request.query) if request.query else None
        encoded = self._family.encode(rows)
        trial = self._trials.current if self._trials else None
        if trial is not None and model is self._slot.current:
            model, output = trial.run(model, encoded, request.headers.get(STICKY))
        else:
            output = self._output(model, encoded)
        answers = self._family.decode(output)
        if self._tally is not None:
            self._tally.add_rows(model.version, len(rows))
        if self._log is not None:
            seconds = time.perf_counter() - started
            name = _request_id(request)
            key = request.headers.get(KEY, b"").decode("latin-1") or None
            entry = Entry(name, model.version, time.time(), seconds, rows, answers, key, anchor)
            self._log.offer(entry)
        if self._requests is not None:
            seconds = time.perf_counter() - started
            name = _request_id(request)
            self._requests.predicted(name, model.version, seconds, rows, answers)
        return model, answers

    def _output(self, model: LoadedModel, encoded: Array) -> Array:
        if self._tracer is None:
            return model.run(encoded)
        with self._tracer.span("run model", family=model.family, version=model.version):
            return model.run(encoded)

    def _anchor(self, query: bytes) -> datetime | None:
        return _query_hour(query) if isinstance(self._family.data, Series) else None


def _request_id(request: Request) -> str:
    return request.headers.get(REQUEST_ID, b"").decode("latin-1")


def no_model(family: str, refused: dict[str, str]) -> str:
    """Return the sentence that says why a family cannot answer."""
    why = "; ".join(refused.values()) or f"train one with `raysys train {family}`"
    return f"No model of {family} is loaded: {why}."


def _query_value(query: bytes, name: str) -> str | None:
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get(name)
    return None if values is None else values[-1]


def _query_version(query: bytes) -> str | None:
    version = _query_value(query, "version") if query else None
    if version is not None and not version.isdecimal():
        raise InvalidInput(
            "The query's version is not a number.",
            issues=[{"loc": ["query", "version"], "reason": "must be a whole number"}],
        )
    return version


def _query_hour(query: bytes) -> datetime | None:
    """Return the hour of the last input value, where the query names it with `at`."""
    text = _query_value(query, "at")
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError
        at = at.astimezone(UTC)
        if at != at.replace(minute=0, second=0, microsecond=0):
            raise ValueError
    except (ValueError, OverflowError):
        reason = "must be a whole hour with its zone, such as 2026-11-24T05:00Z"
        issues = [{"loc": ["query", "at"], "reason": reason}]
        raise InvalidInput("The query's at is not an hour.", issues=issues) from None
    return at


def _named(model: LoadedModel) -> bytes:
    return msgspec.json.encode({"name": model.family, "version": model.version})
