"""What is logged of a training so that it can be repeated."""

from __future__ import annotations

import json

from raysys.families.atmos import Atmos
from raysys.pipelines import provenance
from raysys.records import Snapshot


def test_provenance_is_plain_data_with_everything_that_repeats_a_training() -> None:
    snapshot = Snapshot(hash="abc", family="atmos", uri="/x", rows=3)
    facts = json.loads(json.dumps(provenance.of(Atmos(), snapshot, seed=5, trials=4)))
    assert facts["snapshot"]["hash"] == "abc"
    assert (facts["seed"], facts["trials"]) == (5, 4)
    assert facts["space"]["cells"] == {"low": 16, "high": 32}
    assert facts["packages"].keys() >= {"raysys", "keras", "onnxruntime"}


def test_package_that_is_not_installed_is_left_out() -> None:
    class Alien(Atmos):
        framework_packages = ("no-such-distribution",)

    assert "no-such-distribution" not in provenance.packages(Alien())
