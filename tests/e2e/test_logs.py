"""One stream of JSON lines from all processes, in which ids lead from a request to its snapshot."""

from __future__ import annotations

import json
from typing import Any

import pytest

from raysys import families
from raysys.laptop.processes import wait_until
from tests.e2e.conftest import Home

pytestmark = pytest.mark.early


def records(home: Home) -> list[dict[str, Any]]:
    """Return every record of the stream, oldest file first."""
    files = sorted(home.path.glob("logs/raysys.jsonl*"), reverse=True)
    files = [file for file in files if file.suffix != ".lock"]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_ids_lead_from_a_request_to_its_snapshot(home: Home) -> None:
    with home.client() as client:
        headers = {"x-request-id": "joined"}
        body = families.get("insurance").example
        answer = client.put("/predict/insurance", json=body, headers=headers)
    version = answer.json()["model"]["version"]

    def asked() -> list[dict[str, Any]]:
        return [r for r in records(home) if r.get("request_id") == "joined"]

    wait_until(lambda: bool(asked()), "The record of the request", timeout_seconds=20)
    (request,) = asked()
    assert (request["family"], request["version"]) == ("insurance", version)
    assert "inputs" not in request
    told = [r for r in records(home) if r.get("part") == "run" and r.get("family") == "insurance"]
    registered = next(r for r in told if r.get("version") == version and "run_id" in r)
    taken = next(
        r
        for r in records(home)
        if r.get("step") == "take_snapshot"
        and r.get("workflow_id") == registered["workflow_id"]
        and "snapshot" in r
    )
    assert taken["snapshot"] == registered["snapshot"]
    trials = [r for r in records(home) if r.get("workflow_id") == taken["workflow_id"]]
    assert any(r.get("trial_id") for r in trials)
    runs = {run["id"]: run["status"] for run in home.json("runs", "list")}
    assert runs[registered["workflow_id"]] == "SUCCESSFUL"


def test_the_stream_holds_records_of_many_processes_and_no_secret(home: Home) -> None:
    found = records(home)
    assert len({record["pid"] for record in found}) >= 4
    assert {"run", "step", "serving", "request"} <= {record["part"] for record in found}
    text = "\n".join(json.dumps(record) for record in found)
    for name in ("api-token", "ray-token"):
        assert (home.path / name).read_text().strip() not in text
