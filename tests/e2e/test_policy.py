"""A bad model that somebody promoted by hand is taken back by the policy, on a running system."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from raysys import families
from raysys.laptop import processes
from tests.e2e.conftest import Home
from tests.ray.serving_ground import register, scaled_model

PERSON = families.get("insurance").example
AGES = range(18, 58)


def ask(home: Home, ages: range = AGES) -> dict[str, Any]:
    """Ask for the charges of a person at these ages; return the answers by request id."""
    found = {}
    with home.client() as client:
        for age in ages:
            id = f"policy-{uuid.uuid4()}"
            headers = {"x-request-id": id}
            answer = client.put("/predict/insurance", json={**PERSON, "age": age}, headers=headers)
            assert answer.status_code == 200, answer.text
            found[id] = answer.json()
    return found


def version(home: Home) -> str:
    """Return the version that answers."""
    (answer,) = ask(home, range(30, 31)).values()
    return str(answer["model"]["version"])


def await_version(home: Home, wanted: str) -> None:
    processes.wait_until(lambda: version(home) == wanted, f"version {wanted}", timeout_seconds=60)


@pytest.fixture
def good(home: Home) -> str:
    """The version that serves before."""
    return version(home)


def test_a_bad_model_promoted_by_hand_is_rolled_back(home: Home, good: str) -> None:
    before = ask(home)
    truth = [answer["result"] for answer in before.values()]
    # Of more than fifty requests of one second some are not logged.
    home.wait_until_logged(list(before)[-1])
    bad = register(home.settings(), "insurance", scaled_model("insurance", 1000.0))
    home.run("models", "promote", "insurance", bad, "--reason", "it looked so good")
    await_version(home, bad)
    answers = ask(home)
    said = [
        {"request_id": id, "value": value + 100} for id, value in zip(answers, truth, strict=True)
    ]
    with home.client() as client:
        assert client.post("/feedback/insurance", json=said).status_code == 202
    home.wait_until_logged(list(answers)[-1])

    run = home.run("schedules", "trigger", "quality-insurance").strip()
    home.run("runs", "show", run, "--follow")
    assert home.json("runs", "show", run)["run"]["status"] == "SUCCESSFUL"
    await_version(home, good)
    story = home.json("models", "history", "insurance")
    move = next(each for each in story if each.get("actor") == "policy")
    decision = next(each for each in story if each["id"] == f"{run}-decision")
    assert (move["action"], move["from_version"], move["to_version"]) == ("rollback", bad, good)
    assert (decision["action"], decision["reason"]) == ("rollback", move["reason"])
    assert f"version {bad} has a live mae of" in move["reason"]
    assert decision["evidence"]["predecessor_error"] == pytest.approx(100, abs=1)
    assert "decided: rollback" in home.run("models", "history", "insurance")
