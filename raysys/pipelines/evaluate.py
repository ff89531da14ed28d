"""A new model against its baselines and the champion on the same rows, and the gate that judges."""

from __future__ import annotations

import hashlib

import numpy as np

from raysys import families, log
from raysys.artifacts import Artifacts
from raysys.errors import ModelRefused
from raysys.families.base import Family, Predict
from raysys.pipelines import snapshot as snapshots
from raysys.records import Evaluation, ModelFile, Snapshot, Verdict, plain
from raysys.serving import loader
from raysys.settings import Settings
from raysys.tracking import Tracking

MODEL, CHAMPION = "model", "champion"


def compare(
    *,
    family_name: str,
    snapshot: Snapshot,
    model: ModelFile,
    champion: bytes | None,
    champion_version: str | None,
    artifacts: Artifacts,
    settings: Settings,
    tracking: Tracking,
    run_id: str,
) -> Evaluation:
    """Score the model, every baseline and the champion's ONNX on the snapshot's test rows.

    A champion that cannot answer rows as the family encodes them today gets no score.
    """
    family = families.get(family_name)
    parts = family.split(snapshots.load(artifacts, snapshot), settings.seed)
    onnx = artifacts.get(model.uri)
    contenders: dict[str, Predict] = {
        MODEL: loader.load(family, "the new model", model.sha256, onnx).run,
        **family.baselines(parts, settings.seed),
        **_champion(family, champion, champion_version),
    }
    x, y = parts.test
    scores = {who: family.scores(y, predict(x)) for who, predict in contenders.items()}
    evaluation = Evaluation(rows=len(x), scores=scores, champion_version=champion_version)
    if not np.isfinite(list(scores[MODEL].values())).all():
        raise ModelRefused(f"The new model of {family.name} gives numbers that are not finite.")
    _record(evaluation, tracking, run_id)
    return evaluation


def gate(family: Family, evaluation: Evaluation, model: ModelFile) -> Verdict:
    """Judge a model: parity, better than the baseline by the margin, better than the champion."""
    gate, metric, scores = family.gate, family.metric, evaluation.scores
    own, baseline = scores[MODEL][metric], scores[gate.baseline][metric]
    champion = scores.get(CHAMPION, {}).get(metric)
    checks = {
        "parity": model.parity <= gate.parity,
        "baseline": own <= baseline * (1 - gate.margin),
        "champion": champion is None or own < champion,
    }
    reasons = [
        f"ONNX differs by {model.parity:.3g} {family.unit} ({gate.parity:g} allowed)",
        f"{metric} {own:.4g} is {1 - own / baseline:.1%} below {gate.baseline}'s {baseline:.4g}"
        f" ({gate.margin:.0%} needed)",
        _against_champion(evaluation, own, champion),
    ]
    failed = [text for text, good in zip(reasons, checks.values(), strict=True) if not good]
    passed = not failed
    reason = ("Passed: " if passed else "Refused: ") + "; ".join(reasons if passed else failed)
    return Verdict(passed=passed, reason=f"{reason}.", checks=checks)


def _against_champion(evaluation: Evaluation, own: float, champion: float | None) -> str:
    if evaluation.champion_version is None:
        return "there is no champion yet"
    if champion is None:
        return f"champion {evaluation.champion_version} cannot answer these rows"
    relation = "beats" if own < champion else "does not beat"
    return f"{own:.6g} {relation} champion {evaluation.champion_version}'s {champion:.6g}"


def _champion(family: Family, onnx: bytes | None, version: str | None) -> dict[str, Predict]:
    if onnx is None or version is None:
        return {}
    try:
        sha256 = hashlib.sha256(onnx).hexdigest()
        return {CHAMPION: loader.load(family, version, sha256, onnx).run}
    except ModelRefused as error:
        log.get("evaluate").warning("champion not comparable", reason=error.message)
        return {}


def _record(evaluation: Evaluation, tracking: Tracking, run_id: str) -> None:
    tracking.log_json(run_id, "evaluation", plain(evaluation))
    names = {MODEL: "test"}
    metrics = {
        f"{names.get(who, who)}_{name}": value
        for who, scores in evaluation.scores.items()
        for name, value in scores.items()
        if np.isfinite(value)
    }
    tracking.log_metrics(run_id, metrics)
