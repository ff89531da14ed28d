"""The whole API against its own description, by schemathesis: no 5xx, no undocumented status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raysys import tokens
from tests.e2e.conftest import Home

# About 30 requests an example and operation; RAYSYS_API_EXAMPLES=60 makes more than 2,000 cases.
EXAMPLES = os.environ.get("RAYSYS_API_EXAMPLES", "5")
# The rules of tensors (shapes that fit their data, names of inputs) are more than a schema can say.
LEFT_OUT = "positive_data_acceptance"


@pytest.mark.parametrize("scope", ["everybody", "admin"])
def test_answers_are_those_that_the_description_names(home: Home, scope: str) -> None:
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "run"),
        *(f"{home.http_url}/openapi.json", "--max-examples", EXAMPLES),
        # One thread: Python 3.11 cannot parse source in two, which Hypothesis does.
        *("--workers", "1", "--phases", "examples,coverage,fuzzing", "--checks", "all"),
        *("--exclude-checks", LEFT_OUT, "--generation-deterministic"),
        # An answer that waits for another process's write may take long on a busy machine.
        *("--request-timeout", "60"),
    ]
    if scope == "admin":
        # What only reads: a training for every case would be too much of a test.
        token = tokens.api_token(home.settings())
        command += ["--header", f"Authorization: Bearer {token}", "--include-path-regex", "^/admin"]
        command += ["--include-method", "GET", "--exclude-checks", f"{LEFT_OUT},ignored_auth"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=home.path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
