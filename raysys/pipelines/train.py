"""From the winning configuration to a registered version: refit, export, parity, registration."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from raysys import families
from raysys.artifacts import Artifacts
from raysys.errors import ModelRefused
from raysys.families import figures
from raysys.families.base import Array, Family, Parts
from raysys.pipelines import provenance
from raysys.pipelines import snapshot as snapshots
from raysys.records import (
    REASON_TAG,
    SCORES_TAG,
    SEED_TAG,
    SNAPSHOT_TAG,
    VERDICT_TAG,
    WORKFLOW_TAG,
    Evaluation,
    ModelFile,
    ModelVersion,
    Snapshot,
    Study,
    Verdict,
)
from raysys.serving import loader
from raysys.settings import Settings
from raysys.tracking import MODEL_FILE, Tracking


def refit(
    *,
    family_name: str,
    snapshot: Snapshot,
    study: Study,
    artifacts: Artifacts,
    settings: Settings,
    tracking: Tracking,
    run_id: str,
    workflow_id: str,
) -> ModelFile:
    """Fit the study's winner on all rows but the test rows, export it, and measure the parity.

    The parity is the largest absolute difference between the framework's answers and those of ONNX
    Runtime on the test rows, loaded as a replica loads it. Raises ModelRefused where it cannot be.
    """
    family = families.get(family_name)
    parts = family.split(snapshots.load(artifacts, snapshot), settings.seed)
    fitted = family.fit(study.best.config, parts, settings.seed)
    onnx = _checked(family, family.to_onnx(fitted))
    sha256 = hashlib.sha256(onnx).hexdigest()
    model = loader.load(family, "the new model", sha256, onnx)
    x, y = parts.test
    answers = model.run(x)
    parity = float(np.max(np.abs(answers - family.predict(fitted, x))))
    tracking.log_metrics(run_id, {"parity": parity})
    tracking.log_figures(run_id, _figures(family, fitted, parts, answers, y))
    return ModelFile(
        uri=artifacts.put(f"models/{family.name}/{workflow_id}/{MODEL_FILE}", onnx),
        sha256=sha256,
        size_bytes=len(onnx),
        config=study.best.config,
        parity=parity,
        parity_rows=len(x),
    )


def register(
    *,
    family_name: str,
    snapshot: Snapshot,
    model: ModelFile,
    evaluation: Evaluation,
    verdict: Verdict,
    artifacts: Artifacts,
    settings: Settings,
    tracking: Tracking,
    run_id: str,
    workflow_id: str,
) -> ModelVersion:
    """Make the model a version of its family, with scores and verdict in its tags.

    A workflow that comes again gets the version that it made before.
    """
    family = families.get(family_name)
    onnx = artifacts.get(model.uri)
    loaded = loader.load(family, "the new model", model.sha256, onnx)
    example = loader.example_rows(family)[:1]
    tracking.log_json(run_id, "verdict", {"passed": verdict.passed, "reason": verdict.reason})
    return tracking.register(
        family.name,
        run_id,
        onnx,
        example,
        loaded.run(example),
        tags={
            WORKFLOW_TAG: workflow_id,
            SNAPSHOT_TAG: snapshot.hash,
            SEED_TAG: str(settings.seed),
            SCORES_TAG: json.dumps(evaluation.scores),
            "raysys.parity": f"{model.parity:.3g}",
            VERDICT_TAG: "passed" if verdict.passed else "refused",
            REASON_TAG: verdict.reason,
            "raysys.git_commit": provenance.git_commit() or "",
        },
        description=f"{family.title}. {verdict.reason}",
    )


def _checked(family: Family, onnx: bytes) -> bytes:
    from onnx import checker

    try:
        checker.check_model(onnx, full_check=True)
    except checker.ValidationError as error:
        raise ModelRefused(
            f"The export of {family.name} is no valid ONNX: {error}.", family=family.name
        ) from error
    return onnx


def _figures(family: Family, fitted: Any, parts: Parts, answers: Array, y: Array) -> dict[str, Any]:
    return {
        "residuals": figures.residuals(y, answers, unit=family.unit, title=family.title),
        **family.plots(fitted, parts, answers),
    }
