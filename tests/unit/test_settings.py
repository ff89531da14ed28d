"""Settings come from the environment, then the file, then the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from raysys.settings import Policy, Settings, nearest_home


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [n for n in os.environ if n.startswith(("RAYSYS_", "RAY_ADDRESS"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_environment_wins_over_file_and_file_over_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raysys.toml").write_text('http_port = 9001\natmos_station = "159"\n')
    monkeypatch.setenv("RAYSYS_HTTP_PORT", "9002")
    settings = Settings()
    assert (settings.http_port, settings.atmos_station) == (9002, "159")
    assert settings.atmos_source == "sample"


def test_home_is_that_of_the_nearest_parent(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert nearest_home(inner) == inner / ".raysys"
    (tmp_path / ".raysys").mkdir()
    assert nearest_home(inner) == tmp_path / ".raysys"


@pytest.mark.parametrize(
    "given",
    [
        {"database_url": "mysql://x"},
        {"http_port": 0},
        {"atmos_source": "crystal-ball"},
        {"atmos_zone": "Nowhere/Town"},
        {"kma_publication_hour": 24},
    ],
)
def test_nonsense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**given)


def test_settings_are_frozen_and_hide_secrets() -> None:
    settings = Settings(kma_service_key="very-secret")
    assert "very-secret" not in repr(settings) + str(settings.model_dump())
    with pytest.raises(ValidationError):
        settings.http_port = 1


def test_child_process_reads_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Settings(
        home=tmp_path / "h", kma_service_key="k+/=", families=("a", "b"), ray_address="ray://x:1"
    )
    for name, value in told.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == told


def test_addresses_follow_from_home(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert settings.database == f"sqlite:///{tmp_path}/raysys.db"
    assert settings.workflow_database != settings.database
    assert settings.artifact_root == str(tmp_path / "artifacts")
    on_postgres = Settings(home=tmp_path, database_url="postgresql://u@h/d")
    assert on_postgres.database == "postgresql+psycopg2://u@h/d" == on_postgres.workflow_database


def test_a_familys_policy_stands_above_the_policy_of_all(tmp_path: Path) -> None:
    (tmp_path / "raysys.toml").write_text(
        "[policy.all]\nage_days = 30\ndry_run = true\n\n[policy.atmos]\nage_days = 7\n"
    )
    settings = Settings()
    atmos, other = settings.policy_of("atmos"), settings.policy_of("insurance")
    assert (atmos.age_days, atmos.dry_run, other.age_days) == (7, True, 30)


def test_a_family_without_a_policy_has_the_defaults() -> None:
    settings = Settings(policy={"atmos": {"windows": 9}})
    assert settings.policy_of("atmos") == Policy(windows=9)
    assert settings.policy_of("insurance") == Policy()
    assert "policy" in settings.changed()
    assert "policy" not in Settings().changed()


def test_children_read_the_same_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path, policy={"atmos": {"cooldown_hours": 1}})
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings().policy == settings.policy


@pytest.mark.parametrize(
    "rule",
    [{"windws": 3}, {"windows": 0}, {"error_tolerance": -1}, {"bad_windows": 5, "windows": 4}],
)
def test_a_policy_that_means_nothing_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(policy={"atmos": rule})


def test_the_page_of_quality_lists_every_setting_of_a_policy() -> None:
    page = (Path(__file__).parents[2] / "docs" / "quality.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    told = {row[0].strip("| `"): row[2].removesuffix(" |") for row in rows if len(row) == 3}
    fields = {name: field.description for name, field in Policy.model_fields.items()}
    assert told == fields
