"""A world in fast-forward: a simulated station, a caller, and the quality loop day by day, under a clock of its own."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa
from msgspec.structs import replace

from raysys import families
from raysys.artifacts import Artifacts
from raysys.errors import NotFound
from raysys.families.base import Parts
from raysys.pipelines import (
    acting,
    crawl,
    evaluate,
    policy,
    promote,
    quality,
    snapshot,
    standing,
    truth,
)
from raysys.records import Act, Level, ModelFile, ModelVersion, Verdict
from raysys.serving import loader
from raysys.settings import Settings
from raysys.sources import open_source, sample, series_name
from raysys.store import decisions, predictions

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
RIDGE = {"model": "ridge", "alpha": 10.0}


class Shelf:
    """A registry in memory."""

    def __init__(self) -> None:
        self._versions: dict[str, tuple[ModelVersion, bytes]] = {}
        self._aliases: dict[str, str] = {}

    def add(self, family: str, onnx: bytes, tags: dict[str, str]) -> ModelVersion:
        number = str(len(self._versions) + 1)
        made = ModelVersion(
            family=family, version=number, run_id="", sha256=_sha256(onnx), model_uri="", tags=tags
        )
        self._versions[number] = made, onnx
        return made

    def version(self, family: str, version: str) -> ModelVersion:
        if version not in self._versions:
            raise NotFound(f"{family} has no version {version}")
        found, _ = self._versions[version]
        return replace(found, aliases=[a for a, v in self._aliases.items() if v == version])

    def versions(self, family: str) -> list[ModelVersion]:
        return [self.version(family, number) for number in reversed(self._versions)]

    def champion(self, family: str) -> ModelVersion | None:
        alias = self._aliases.get("champion")
        return None if alias is None else self.version(family, alias)

    def set_alias(self, family: str, alias: str, version: str) -> None:
        self._aliases[alias] = version

    def fetch(self, version: ModelVersion) -> bytes:
        return self._versions[version.version][1]


class Untracked:
    """A tracking server that keeps nothing."""

    def log_json(self, run_id: str, name: str, content: Any) -> None:
        """Keep nothing."""

    def log_metrics(self, run_id: str, metrics: dict[str, float]) -> None:
        """Keep nothing."""


class Day:
    """What the loop saw and did on one day."""

    def __init__(
        self,
        at: datetime,
        state: policy.State,
        act: Act | None,
        levels: list[Level],
    ) -> None:
        self.at, self.state, self.act, self._levels = at, state, act, levels

    def level(self, name: str) -> float:
        """Return the largest value that this day exported under a metric's name."""
        return max((each.value for each in self._levels if each.name == name), default=0.0)


class World:
    """A station's weather, a caller who asks every hour, and the family's loop, which runs once a day."""

    family = families.get("atmos")

    def __init__(self, engine: sa.Engine, settings: Settings, start: datetime) -> None:
        self.engine, self.settings, self.now = engine, settings, start
        self.artifacts = Artifacts(settings.artifact_root)
        self.shelf = Shelf()
        self.trained_at: datetime | None = None
        self.days: list[Day] = []
        self.verdicts: list[Verdict] = []

    @property
    def where(self) -> standing.Where:
        registry: Any = self.shelf
        return standing.Where(self.engine, self.artifacts, registry, self.family, self.settings)

    # -- what the workflows do ---------------------------------------------------------------------

    def crawl(self) -> None:
        """Bring every hour that the station has published."""
        with open_source(self.settings, clock=lambda: self.now) as source:
            windows = crawl.plan(
                self.engine,
                source,
                since=None,
                until=None,
                now=self.now,
                history_days=self.settings.atmos_history_days,
            )
            for window in windows:
                crawl.fetch_window(
                    self.engine, source, self.family.name, window, workflow_id=None, now=self.now
                )

    def train(self, wrong_by: float = 0.0) -> ModelVersion:
        """Fit a ridge on all that is stored, and register it with its scores.

        What it forecasts is `wrong_by` degrees too high, which its scores do not tell.
        """
        self.trained_at = self.now
        taken = snapshot.take(
            self.engine,
            self.artifacts,
            self.family,
            series_name(self.settings),
            workflow_id=None,
            now=self.now,
        )
        parts = self.family.split(snapshot.load(self.artifacts, taken), self.settings.seed)
        fitted = self.family.fit(RIDGE, parts, self.settings.seed)
        wrong = self.family.fit(RIDGE, _raised(parts, wrong_by), self.settings.seed)
        x, y = parts.test
        simple = self.family.baselines(parts, self.settings.seed)
        scores = {
            "model": self.family.scores(y, self.family.predict(fitted, x)),
            **{name: self.family.scores(y, of(x)) for name, of in simple.items()},
        }
        onnx = self.family.to_onnx(wrong)
        answers = loader.load(self.family, "new", _sha256(onnx), onnx).run(x)
        tags = {
            "raysys.snapshot": taken.hash,
            "raysys.scores": json.dumps(scores),
            "raysys.parity": str(np.abs(answers - self.family.predict(wrong, x)).max()),
        }
        return self.shelf.add(self.family.name, onnx, tags)

    def gate(self, made: ModelVersion) -> Verdict:
        """Judge a version against the champion and the baselines, as a training does."""
        rows, champion = (
            standing.snapshot_of(self.where, made),
            self.shelf.champion(self.family.name),
        )
        assert rows is not None
        assert champion is not None
        onnx = self.shelf.fetch(made)
        model = ModelFile(
            uri=self.artifacts.put(f"models/{made.version}.onnx", onnx),
            sha256=made.sha256,
            size_bytes=len(onnx),
            config=RIDGE,
            parity=float(made.tags["raysys.parity"]),
            parity_rows=1,
        )
        tracking: Any = Untracked()
        evaluation = evaluate.compare(
            family_name=self.family.name,
            snapshot=rows,
            model=model,
            champion=self.shelf.fetch(champion),
            champion_version=champion.version,
            artifacts=self.artifacts,
            settings=self.settings,
            tracking=tracking,
            run_id="",
        )
        return evaluate.gate(self.family, evaluation, model)

    def promote(self, version: str, reason: str) -> None:
        """Make a version the champion, as a person or a training does."""
        registry: Any = self.shelf
        promote.promote(
            self.engine,
            registry,
            family=self.family.name,
            version=version,
            actor="test",
            reason=reason,
            id=uuid.uuid4().hex,
            report={},
            now=self.now,
        )

    def judge(self) -> Day:
        """Do what the workflow `quality` does, and what it starts."""
        truth.join(self.engine, self.family, self.settings, now=self.now)
        found = standing.report(self.where, now=self.now)
        state = standing.score(self.where, found, now=self.now)
        assert state is not None
        drifts = standing.drift(self.where, now=self.now)
        act = policy.decide(
            replace(state, drifts=drifts, trained_at=self.trained_at),
            self.where.policy,
            decisions.history(self.engine, self.family.name),
            id=f"quality-{self.now.isoformat()}",
            now=self.now,
        )
        if act is not None:
            act = decisions.append(self.engine, act)
            acting.carry_out(self.where, act, self._train, now=self.now)
        levels = standing.levels(state, found, self.where.policy)
        return Day(self.now, state, act, [*levels, *standing.drift_levels("atmos", drifts)])

    def _train(self) -> str:
        made = self.train()
        verdict = self.gate(made)
        self.verdicts.append(verdict)
        if verdict.passed:
            self.promote(made.version, verdict.reason)
        return "train-1"

    # -- the caller --------------------------------------------------------------------------------

    def ask(self, since: datetime, until: datetime) -> None:
        """Ask the champion at every hour from `since` to before `until`, with the station's own last 72 hours."""
        champion = self.shelf.champion(self.family.name)
        assert champion is not None
        predict = quality.predictor(self.family, self.shelf.fetch(champion))
        hours = np.arange(_hour(since) - 72, _hour(until), dtype=np.int64)
        seed = sample.station_seed(self.settings.atmos_station)
        values = np.round(sample.weather(hours, seed)["temperature"], 1).astype(np.float32)
        x = np.lib.stride_tricks.sliding_window_view(values, 72)[: _hour(until) - _hour(since)]
        answers = predict(np.ascontiguousarray(x))
        rows = [
            {
                "id": uuid.uuid4().hex,
                "request_id": uuid.uuid4().hex,
                "family": self.family.name,
                "version": champion.version,
                # The last input is the hour before: it is asked a few minutes into the next one.
                "at": since + place * HOUR + timedelta(minutes=5),
                "latency_ms": 1.0,
                "inputs": [round(float(v), 1) for v in inputs],
                "outputs": answer.tolist(),
                "row": 0,
                "key": None,
                "anchor": None,
                "truth": None,
            }
            for place, (inputs, answer) in enumerate(zip(x, answers, strict=True))
        ]
        predictions.append_many(self.engine, rows)

    # -- time --------------------------------------------------------------------------------------

    def only_ask(self, days: int) -> None:
        """Let days pass whose forecasts get their truth and are judged by nobody: nothing is ever trained."""
        for _ in range(days):
            self.ask(self.now, self.now + DAY)
            self.now += DAY
            self.crawl()
            truth.join(self.engine, self.family, self.settings, now=self.now)

    def pass_days(self, days: int) -> list[Day]:
        """Let days pass: each is asked about, crawled when it is published, and judged."""
        passed = []
        for _ in range(days):
            self.ask(self.now, self.now + DAY)
            self.now += DAY
            self.crawl()
            passed.append(self.judge())
        self.days += passed
        return passed

    def acts(self) -> list[str]:
        """Return what was decided so far, oldest first."""
        found = decisions.history(self.engine, self.family.name)
        return [act.action for act in reversed(found)]

    def mean_error(self, since: datetime, until: datetime) -> float:
        """Return the mean absolute error of all answers of that time, from the tables alone, without raysys."""
        query = sa.text(
            "SELECT p.id, p.outputs, t.position, t.value FROM predictions p JOIN truths t"
            " ON t.prediction_id = p.id WHERE p.at >= :since AND p.at < :until"
        )
        edges = {"since": f"{since:%Y-%m-%d %H:%M:%S}", "until": f"{until:%Y-%m-%d %H:%M:%S}"}
        with self.engine.connect() as connection:
            rows = connection.execute(query, edges).all()
        return float(
            np.mean([abs(json.loads(out)[where] - value) for _, out, where, value in rows])
        )


def _sha256(onnx: bytes) -> str:
    return hashlib.sha256(onnx).hexdigest()


def _hour(at: datetime) -> int:
    return int(at.timestamp()) // 3600


def _raised(parts: Parts, degrees: float) -> Parts:
    raised = [(x, y + np.float32(degrees)) for x, y in (parts.train, parts.validation, parts.test)]
    return Parts(*raised)


Bias = Callable[[Any], Any]


def beside_a_machine(hours: Any) -> Any:
    """Return the bias of a thermometer beside a machine that runs for three hours and rests for three."""
    return np.where(hours // 3 % 2, 4.0, 0.0)


def shift(patch: Callable[[Any, str, Any], None], since: datetime, bias: float | Bias) -> None:
    """Give the station's thermometer a bias from `since` on; `patch` sets an attribute."""
    real = sample.weather

    def weather(hours: Any, seed: int) -> dict[str, Any]:
        columns = real(hours, seed)
        off = bias(hours) if callable(bias) else bias
        offset = np.where(hours >= _hour(since), off, 0.0)
        return {**columns, "temperature": columns["temperature"] + offset}

    patch(sample, "weather", weather)
