"""Commands that need nothing running: usage, errors, exit codes and what they print."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raysys import cli
from raysys.cli import screen
from raysys.errors import InvalidInput


def run(monkeypatch: pytest.MonkeyPatch, home: Path, *words: str) -> int:
    """Run a command in this process and return its exit code."""
    monkeypatch.setenv("RAYSYS_HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["raysys", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "nonsense"), "There is no family 'nonsense'"),
        (("train", "insurance", "--trials", "0"), "--trials"),
        (("crawl", "atmos", "--since", "yesterday"), "--since"),
        (("crawl", "atmos", "--since", "2026-02-02", "--until", "2026-01-01"), "lies after"),
        (("data", "import", "insurance", "no-such-file.csv"), "no-such-file.csv"),
        (("fly",), "fly"),
    ],
)
def test_wrong_usage_exits_2_and_names_the_fault(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: tuple[str, ...],
    said: str,
) -> None:
    assert run(monkeypatch, tmp_path, *words) == 2
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_failure_exits_1_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("RAYSYS_HTTP_PORT", "1")
    assert run(monkeypatch, tmp_path, "predict", "insurance", "{}") == 1
    said = capsys.readouterr().err
    assert "does not answer" in said
    assert "raysys up" in said
    assert "Traceback" not in said


def test_down_with_nothing_running_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, tmp_path / "home", "down") == 0
    assert "Nothing was running." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("RAYSYS_HTTP_PORT", "secret-abc", "http_port: Input should be a valid integer"),
        ("RAYSYS_POLICY", "{", 'RAYSYS_*: error parsing value for field "policy"'),
        (
            "RAYSYS_POLICY",
            '{"atmos": {"bad_windows": 9}}',
            "policy.atmos: bad_windows is 9, and of 4 windows no more can be bad",
        ),
        ("raysys.toml", "http_port = [", "raysys.toml: "),
    ],
)
def test_unreadable_settings_are_named_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    value: str,
    said: str,
) -> None:
    if name.startswith("RAYSYS_"):
        monkeypatch.setenv(name, value)
    else:
        (tmp_path / name).write_text(value)
    assert run(monkeypatch, tmp_path, "status") == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    assert "secret-abc" not in shown


def test_settings_are_shown_with_secrets_masked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("RAYSYS_KMA_SERVICE_KEY", "very-secret")
    monkeypatch.setenv("RAYSYS_DATABASE_URL", "postgresql://me:very-secret@db/rows")
    assert run(monkeypatch, tmp_path, "doctor", "--settings") == 0
    said = capsys.readouterr().out
    assert "very-secret" not in said
    shown = json.loads(said)
    assert shown["kma_service_key"] == "***"
    assert shown["database_url"] == "postgresql+psycopg2://me:***@db/rows"


def test_every_fault_of_an_input_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    issues = [{"loc": ["row", 3], "reason": "is [odd]"}, {"loc": ["bmi"], "reason": "is missing"}]
    screen.show_error(InvalidInput("The file is refused.", issues=issues))
    assert capsys.readouterr().err.splitlines() == [
        "error: The file is refused.",
        "  row.3: is [odd]",
        "  bmi: is missing",
    ]


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    code = (
        "import sys, raysys.cli;"
        "heavy = {'ray', 'mlflow', 'tensorflow', 'keras', 'xgboost', 'sklearn', 'pandas', 'dbos', 'matplotlib'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
