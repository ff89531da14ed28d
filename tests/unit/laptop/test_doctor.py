"""What the doctor finds wrong with the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.laptop import doctor
from raysys.settings import Settings


@pytest.mark.parametrize(("name", "ok"), [("all", True), ("atmos", True), ("insurence", False)])
def test_a_policy_of_no_installed_family_is_found(tmp_path: Path, name: str, ok: bool) -> None:
    settings = Settings(home=tmp_path, policy={name: {"age_days": 30}})
    found = next(each for each in doctor.examine(settings) if each.what == "policies")
    assert found.ok is ok
    assert ok or ("insurence" in found.found and "insurance" in found.remedy)
