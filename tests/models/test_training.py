"""From a snapshot to a registered version that MLflow itself can load, on a real MLflow server."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from raysys import families
from raysys.artifacts import Artifacts
from raysys.families.insurance import Insurance
from raysys.pipelines import evaluate, ingest, promote, snapshot, train
from raysys.records import Evaluation, ModelFile, ModelVersion, Snapshot, Study, Trial, Verdict
from raysys.registry import Registry
from raysys.settings import Settings
from raysys.tracking import Tracking
from tests.unit.families.test_insurance import people

FAMILY = Insurance()


class Bench:
    """One workflow's worth of opened resources."""

    def __init__(self, engine: sa.Engine, settings: Settings, url: str, now: Any) -> None:
        self.engine, self.settings, self.now = engine, settings, now
        self.artifacts = Artifacts(settings.artifact_root)
        self.tracking = Tracking(url)
        self.registry = Registry(url)
        self.workflow_id = f"wf-{uuid.uuid4().hex[:8]}"
        self.run_id = self.tracking.open_run("insurance", self.workflow_id)

    def snapshot(self, rows: pd.DataFrame, folder: Path) -> Snapshot:
        rows.to_csv(folder / "rows.csv", index=False)
        ingest.import_csv(
            self.engine, FAMILY, folder / "rows.csv", settings=self.settings, now=self.now
        )
        return snapshot.take(
            self.engine, self.artifacts, FAMILY, None, workflow_id=None, now=self.now
        )

    def common(self, taken: Snapshot) -> dict[str, Any]:
        return {
            "family_name": "insurance",
            "snapshot": taken,
            "artifacts": self.artifacts,
            "settings": self.settings,
            "tracking": self.tracking,
            "run_id": self.run_id,
        }

    def refit(self, taken: Snapshot) -> ModelFile:
        best = Trial(
            trial_id="t", run_id="r", config=FAMILY.candidates()[0], metric=1.0, seconds=1.0
        )
        study = Study(family="insurance", metric_name="mae", best=best, trials=[best])
        return train.refit(**self.common(taken), study=study, workflow_id=self.workflow_id)

    def compare(self, taken: Snapshot, model: ModelFile, champion: bytes | None) -> Evaluation:
        version = None if champion is None else "1"
        return evaluate.compare(
            **self.common(taken), model=model, champion=champion, champion_version=version
        )

    def register(self, taken: Snapshot, model: ModelFile, scores: Evaluation) -> ModelVersion:
        verdict = Verdict(passed=True, reason="for a test")
        return train.register(
            **self.common(taken),
            model=model,
            evaluation=scores,
            verdict=verdict,
            workflow_id=self.workflow_id,
        )


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'raysys.db'}"


@pytest.fixture
def bench(engine: sa.Engine, settings: Settings, mlflow_url: str, now: Any) -> Any:
    opened = Bench(engine, settings, mlflow_url, now)
    yield opened
    opened.registry.close()


def test_model_goes_from_rows_to_a_version_that_mlflow_loads(bench: Bench, tmp_path: Path) -> None:
    taken = bench.snapshot(people(300), tmp_path)
    model = bench.refit(taken)
    scores = bench.compare(taken, model, champion=None)
    assert evaluate.gate(FAMILY, scores, model).checks["parity"]
    assert scores.scores.keys() == {"model", "linear", "mean"}
    version = bench.register(taken, model, scores)
    assert json.loads(version.tags["raysys.scores"]) == scores.scores

    promote.promote(
        bench.engine,
        bench.registry,
        family="insurance",
        version=version.version,
        actor="test",
        reason="",
        id=bench.workflow_id,
        report={},
        now=bench.now,
    )
    champion = bench.registry.champion("insurance")
    assert champion is not None
    onnx = bench.registry.fetch(champion)
    assert onnx == bench.artifacts.get(model.uri)

    import mlflow

    mlflow.set_tracking_uri(bench.tracking.tracking_uri)
    loaded = mlflow.pyfunc.load_model("models:/insurance@champion", dst_path=str(tmp_path))
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, 6)
    example = loaded.input_example
    from raysys.serving import loader

    served = loader.load(FAMILY, "1", champion.sha256, onnx).run(example)
    assert loaded.predict(example)["output"] == pytest.approx(served, abs=1e-3)


def test_repeated_steps_make_the_same_model_and_one_version(bench: Bench, tmp_path: Path) -> None:
    taken = bench.snapshot(people(200), tmp_path)
    first, again = bench.refit(taken), bench.refit(taken)
    assert first == again
    scores = bench.compare(taken, first, champion=None)
    versions = [bench.register(taken, first, scores).version for _ in range(2)]
    assert versions[0] == versions[1]


def test_equal_champion_is_not_beaten(bench: Bench, tmp_path: Path) -> None:
    taken = bench.snapshot(people(200), tmp_path)
    model = bench.refit(taken)
    scores = bench.compare(taken, model, champion=bench.artifacts.get(model.uri))
    assert scores.scores["champion"] == scores.scores["model"]
    assert not evaluate.gate(FAMILY, scores, model).checks["champion"]


def test_champion_that_is_no_model_gets_no_score(bench: Bench, tmp_path: Path) -> None:
    taken = bench.snapshot(people(200), tmp_path)
    model = bench.refit(taken)
    assert "champion" not in bench.compare(taken, model, champion=b"no onnx").scores


def test_run_holds_scores_and_figures(bench: Bench, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    taken = bench.snapshot(people(200), tmp_path)
    model = bench.refit(taken)
    bench.compare(taken, model, champion=None)
    client = MlflowClient(bench.tracking.tracking_uri)
    metrics = client.get_run(bench.run_id).data.metrics
    assert metrics.keys() >= {"parity", "test_mae", "test_rmse", "test_r2", "linear_mae"}
    names = {artifact.path for artifact in client.list_artifacts(bench.run_id, "figures")}
    assert names == {f"figures/{name}.png" for name in ("residuals", "importance", "truth")}


@pytest.mark.parametrize("seed", [20260101, 0, 1, 2])
def test_real_charges_are_predicted_as_well_as_expected(shared_data: Path, seed: int) -> None:
    table, _ = FAMILY.prepare(pd.read_csv(shared_data / "insurance.csv"))
    parts = FAMILY.split(table, seed)
    config = FAMILY.candidates()[0]
    folds: list[float] = []
    FAMILY.validate(config, parts, seed, lambda _epoch, metric: folds.append(metric))
    x, y = parts.test
    scores = FAMILY.scores(y, FAMILY.predict(FAMILY.fit(config, parts, seed), x))
    assert folds[0] <= 2800
    assert scores["mae"] <= 2800
    assert scores["r2"] >= 0.84


def test_real_hours_are_forecast_better_than_persistence(shared_data: Path) -> None:
    raw = pd.read_csv(shared_data / "hourly" / "beijing_aotizhongxin_2013_2017.csv")
    times = pd.to_datetime(raw["time"]).dt.tz_localize("Asia/Shanghai").dt.tz_convert("UTC")
    family = families.get("atmos")
    table, _ = family.prepare(pd.DataFrame({"time": times, "temperature": raw["tmp"]}))
    parts = family.split(table, seed=1)
    x, y = parts.test
    fitted = family.fit(family.candidates()[0], parts, 1)
    mae = float(np.abs(family.predict(fitted, x) - y).mean())
    persistence = float(np.abs(family.baselines(parts, 1)["persistence"](x) - y).mean())
    assert 0.65 * persistence < mae < 0.9 * persistence
