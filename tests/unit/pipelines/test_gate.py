"""The gate: each check alone refuses, and the verdict says with which numbers."""

from __future__ import annotations

import pytest

from raysys.families.insurance import Insurance
from raysys.pipelines.evaluate import gate
from raysys.records import Evaluation, ModelFile

FAMILY = Insurance()  # 10 % better than linear, 0.5 USD of parity


def judge(
    *, model: float, parity: float = 0.1, champion: float | None = None, version: str | None = None
) -> tuple[bool, dict[str, bool], str]:
    scores = {"model": {"mae": model}, "linear": {"mae": 4000.0}}
    if champion is not None:
        scores["champion"] = {"mae": champion}
        version = version or "3"
    file = ModelFile(uri="", sha256="", size_bytes=0, config={}, parity=parity, parity_rows=10)
    verdict = gate(FAMILY, Evaluation(rows=10, scores=scores, champion_version=version), file)
    return verdict.passed, verdict.checks, verdict.reason


def test_good_first_model_passes() -> None:
    passed, checks, reason = judge(model=3600.0)
    assert passed
    assert checks == {"parity": True, "baseline": True, "champion": True}
    assert "3600" in reason
    assert "4000" in reason


@pytest.mark.parametrize(
    ("scores", "check", "number"),
    [
        ({"model": 2500.0, "parity": 0.51}, "parity", "0.51"),
        ({"model": 2500.0, "parity": float("nan")}, "parity", "nan"),
        ({"model": 3601.0}, "baseline", "3601"),
        ({"model": float("nan")}, "baseline", "nan"),
        ({"model": 2500.0, "champion": 2499.9}, "champion", "2499.9"),
        ({"model": 2500.0, "champion": 2500.0}, "champion", "2500"),
    ],
)
def test_each_check_refuses_alone(scores: dict[str, float], check: str, number: str) -> None:
    passed, checks, reason = judge(**scores)  # type: ignore[arg-type]
    assert not passed
    assert [name for name, good in checks.items() if not good] == [check]
    assert number in reason


def test_champion_is_beaten_by_any_lower_error() -> None:
    assert judge(model=2499.9, champion=2500.0)[0]


def test_champion_without_a_score_does_not_block() -> None:
    passed, _, reason = judge(model=2500.0, version="3")
    assert passed
    assert "champion 3 cannot answer" in reason
