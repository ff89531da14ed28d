"""What maintenance asks of a real MLflow server: a version with its files removed, runs left open closed."""

from __future__ import annotations

import uuid

import httpx
import numpy as np
import pytest

from raysys.errors import NotFound
from raysys.records import WORKFLOW_TAG
from raysys.registry import Registry
from raysys.tracking import Tracking


@pytest.fixture
def tracking(mlflow_url: str) -> Tracking:
    return Tracking(mlflow_url)


def doubling() -> bytes:
    """Return an ONNX model that doubles."""
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "doubling",
        [value("x", TensorProto.FLOAT, [None, 1])],
        [value("y", TensorProto.FLOAT, [None, 1])],
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def test_deleted_version_leaves_no_file_and_the_others_alone(
    tracking: Tracking, mlflow_url: str
) -> None:
    row = np.ones((1, 1), np.float32)
    made = []
    for workflow_id in (uuid.uuid4().hex, uuid.uuid4().hex):
        run_id = tracking.open_run("removal", workflow_id)
        tags = {WORKFLOW_TAG: workflow_id}
        made.append(tracking.register("removal", run_id, doubling(), row, 2 * row, tags))
    old, new = made
    with Registry(mlflow_url) as registry:
        assert registry.fetch(registry.version("removal", old.version)) == doubling()
        for _ in range(2):  # a repetition is harmless
            registry.delete_version(old)
        with pytest.raises(NotFound):
            registry.version("removal", old.version)
        assert registry.fetch(registry.version("removal", new.version)) == doubling()
    path = old.model_uri.removeprefix("mlflow-artifacts:").strip("/")
    listing = httpx.get(f"{mlflow_url}/api/2.0/mlflow-artifacts/artifacts", params={"path": path})
    assert not listing.json().get("files")


def test_runs_that_were_left_open_are_closed_once(tracking: Tracking) -> None:
    run_id = tracking.open_run("removal", uuid.uuid4().hex)
    done, left = (tracking.open_trial(run_id, name, {}) for name in ("done", "left"))
    tracking.close_run(done)
    assert tracking.close_left(run_id) == 2
    assert tracking.close_left(run_id) == 0
    states = [tracking._client.get_run(each).info.status for each in (run_id, left, done)]
    assert states == ["KILLED", "KILLED", "FINISHED"]
