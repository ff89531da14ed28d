"""Serving on a real cluster: HAProxy, Serve, the watcher, MLflow; models that only multiply."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from raysys import db, durable, families
from raysys.registry import Registry
from raysys.serving.config import serve_config
from raysys.serving.loader import example_rows
from raysys.settings import Settings
from tests.bench.load import Target
from tests.bench.load import run as run_load
from tests.bench.suite import Probe
from tests.ray.serving_ground import (
    TOKEN,
    Mlflow,
    own_processes,
    register,
    scaled_model,
    stop_tree,
    until,
)

# Ray Serve's own models warn when they are imported.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

INSURANCE = families.get("insurance")
EXAMPLE = INSURANCE.example
ADMIN = {"authorization": f"Bearer {TOKEN}"}
MOST_MEGABYTES = 350


@pytest.fixture(scope="module")
def serving(cluster: Settings, mlflow: Mlflow) -> Iterator[Settings]:
    """Every application of the config, deployed the way that `raysys up` and KubeRay do."""
    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    db.migrate(cluster)
    durable.migrate(cluster)
    config = serve_config(cluster)
    for application in config["applications"]:
        application["deployments"][0]["autoscaling_config"]["downscale_delay_s"] = 5
    serve.start(proxy_location="EveryNode", http_options=config["http_options"])
    _get_global_client().deploy_apps(ServeDeploySchema.model_validate(config))
    try:
        until(lambda: all_run(len(config["applications"])), 120)
        until(lambda: httpx.get(f"{cluster.http_url}/healthz").is_success, 30)
        yield cluster
    finally:
        serve.shutdown()
        for process in own_processes(cluster, "haproxy"):
            stop_tree(process.pid)
        shutil.rmtree(cluster.session_folder, ignore_errors=True)


def all_run(count: int) -> bool:
    from ray import serve

    states = [str(each.status.value) for each in serve.status().applications.values()]
    return states == ["RUNNING"] * count


@pytest.fixture
def http(serving: Settings) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serving.http_url, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def registry(mlflow: Mlflow) -> Iterator[Registry]:
    with Registry(mlflow.settings.tracking_uri) as registry:
        yield registry


@pytest.fixture(scope="module")
def versions(serving: Settings, registry: Registry) -> dict[str, float]:
    """Two good versions of `insurance`, by version what they multiply with; the first serves."""
    made = {register(serving, "insurance", scaled_model("insurance", s)): s for s in (1.0, 2.0)}
    registry.set_alias("insurance", "champion", next(iter(made)))
    until(lambda: httpx.post(f"{serving.http_url}/predict/insurance", json=EXAMPLE).is_success)
    return made


def served_version(http: httpx.Client) -> str:
    answer = http.post("/predict/insurance", json=EXAMPLE)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model"]["version"])


def promote(registry: Registry, http: httpx.Client, version: str) -> None:
    registry.set_alias("insurance", "champion", version)
    until(lambda: served_version(http) == version)


@contextmanager
def load(url: str, connections: int = 4) -> Iterator[Counter[Any]]:
    """Predict without pause beside the test; counts answers by status, or by kind of failure."""
    seen: Counter[Any] = Counter()
    ended = threading.Event()

    def predict() -> None:
        with httpx.Client(base_url=url, timeout=20) as client:
            while not ended.is_set():
                try:
                    seen[client.post("/predict/insurance", json=EXAMPLE).status_code] += 1
                except httpx.TransportError as error:
                    seen[type(error).__name__] += 1

    threads = [threading.Thread(target=predict) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)


def test_without_a_model_nothing_is_ready(http: httpx.Client) -> None:
    assert http.get("/healthz").status_code == 200
    refusal = http.get("/readyz?family=atmos")
    assert (refusal.status_code, refusal.headers["retry-after"]) == (503, "1")
    assert http.post("/predict/atmos_temperature", json=[1.0] * 72).status_code == 503


def test_the_champion_answers_with_its_version(
    http: httpx.Client, versions: dict[str, float]
) -> None:
    version = served_version(http)
    total = float(example_rows(INSURANCE)[0].sum()) * versions[version]
    for method in ("PUT", "POST"):
        answer = http.request(method, "/predict/insurance", json=EXAMPLE)
        assert answer.json()["result"] == pytest.approx(total, rel=1e-5)
    assert http.get("/readyz?family=insurance").json()["models"] == {"insurance": version}


def test_a_request_id_comes_back(http: httpx.Client, versions: dict[str, float]) -> None:
    for path in ("/predict/insurance", "/v2/models/insurance/infer", "/nothing"):
        answer = http.post(path, json=EXAMPLE, headers={"x-request-id": "r-1"})
        assert answer.headers.get_list("x-request-id") == ["r-1"]
        assert http.post(path, json=EXAMPLE).headers["x-request-id"]


BAD = {
    "not json": ({"content": b"{"}, 400),
    "nan": ({"content": b'{"age": NaN}'}, 422),
    "10 MB": ({"content": b" " * 10_000_000}, 413),
    "media type": ({"content": b"{}", "headers": {"content-type": "text/csv"}}, 415),
}


@pytest.mark.parametrize("path", ["/predict/insurance", "/predict/atmos"])
@pytest.mark.parametrize(("request_", "status"), BAD.values(), ids=BAD.keys())
def test_bad_requests_are_problems_and_the_replica_survives(
    http: httpx.Client, versions: dict[str, float], path: str, request_: Any, status: int
) -> None:
    answer = http.post(path, **request_)
    # A family without a model says so before it looks into a body.
    assert answer.status_code == (
        503 if path.endswith("atmos") and status in (400, 422) else status
    )
    assert answer.headers["content-type"] == "application/problem+json"
    assert served_version(http)


def test_an_unknown_family_is_404_and_names_the_known(http: httpx.Client) -> None:
    answer = http.post("/predict/nobody", json=EXAMPLE)
    assert answer.status_code == 404
    assert "insurance" in answer.json()["detail"]


def test_promotions_under_load_fail_no_request(
    http: httpx.Client, serving: Settings, registry: Registry, versions: dict[str, float]
) -> None:
    with load(serving.http_url) as seen:
        for _ in range(3):
            for version in versions:
                promote(registry, http, version)
    assert seen.keys() == {200}


def test_bad_versions_are_refused_and_told_while_the_old_one_serves(
    http: httpx.Client, serving: Settings, registry: Registry, versions: dict[str, float]
) -> None:
    good = next(iter(versions))
    promote(registry, http, good)
    model = scaled_model("insurance", 3.0)
    bad = {
        "cannot load": register(serving, "insurance", b"junk"),
        "shape": register(serving, "insurance", scaled_model("atmos", 1.0, 24)),
        "not the one that was registered": register(serving, "insurance", model, "0" * 64),
    }
    for reason, version in bad.items():
        registry.set_alias("insurance", "champion", version)
        until(lambda r=reason, v=version: is_told(http, r, v))
        assert served_version(http) == good
    promote(registry, http, good)


def is_told(http: httpx.Client, reason: str, version: str) -> bool:
    told = http.get("/admin/models/insurance", headers=ADMIN).json()["serving"]
    reasons = [told["refused"].get("insurance"), *(r["refused"] for r in told["replicas"])]
    return any(each and reason in each and f" {version} " in each for each in reasons)


def test_the_admin_api_promotes_and_rolls_back(
    http: httpx.Client, registry: Registry, versions: dict[str, float]
) -> None:
    one, two = versions
    promote(registry, http, one)
    for version in (two, one):
        order = {"version": version, "reason": "test"}
        moved = http.post("/admin/models/insurance/promote", json=order, headers=ADMIN)
        assert moved.status_code == 200, moved.text
        until(lambda v=version: served_version(http) == v)
    assert http.post("/admin/models/insurance/rollback", headers=ADMIN).status_code == 200
    until(lambda: served_version(http) == two)
    history = http.get("/admin/models/insurance/history", headers=ADMIN).json()
    assert [(p["action"], p["to_version"]) for p in history[:3]] == [
        ("rollback", two),
        ("promote", one),
        ("promote", two),
    ]
    missing = http.post(
        "/admin/models/insurance/promote", json={"version": "999999"}, headers=ADMIN
    )
    assert missing.status_code == 404


def test_the_admin_api_lists_versions_and_replicas(
    http: httpx.Client, versions: dict[str, float]
) -> None:
    assert http.get("/admin/models").status_code == 401
    told = http.get("/admin/models", headers=ADMIN).json()
    assert set(versions) <= {v["version"] for v in told["versions"]["insurance"]}
    assert served_version(http) in {r["version"] for r in told["serving"]["replicas"]}


def test_tritonclient_works_unchanged(http: httpx.Client, versions: dict[str, float]) -> None:
    triton = pytest.importorskip("tritonclient.http")
    client = triton.InferenceServerClient(str(http.base_url).removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_model_ready("insurance")
    kinds = {"INT64": np.int64, "FP64": np.float64, "BYTES": np.object_}
    metadata = client.get_model_metadata("insurance")
    for as_bytes in (True, False):
        inputs = []
        for spec in metadata["inputs"]:
            tensor = triton.InferInput(spec["name"], [2], spec["datatype"])
            column = np.array([EXAMPLE[spec["name"]]] * 2, dtype=kinds[spec["datatype"]])
            inputs.append(tensor.set_data_from_numpy(column, binary_data=as_bytes))
        answer = client.infer("insurance", inputs, request_id="i1")
        simple = http.post("/predict/insurance", json=[EXAMPLE, EXAMPLE]).json()["result"]
        assert answer.as_numpy("result").ravel().tolist() == pytest.approx(simple, rel=1e-5)
    client.close()


def test_a_replica_is_small_and_imports_no_training_framework(
    serving: Settings, versions: dict[str, float]
) -> None:
    replicas = own_processes(serving, "ServeReplica")
    assert len(replicas) >= 3
    for replica in replicas:
        assert replica.memory_info().rss / 1e6 < MOST_MEGABYTES, replica.cmdline()
        maps = Path(f"/proc/{replica.pid}/maps").read_text()
        assert [n for n in ("tensorflow", "xgboost", "sklearn", "matplotlib") if n in maps] == []


def killed(serving: Settings, name: str) -> psutil.Process:
    """End one process of this cluster, and return it."""
    (process, *_) = own_processes(serving, name)
    process.kill()
    process.wait(10)
    return process


def test_replicas_serve_while_the_watcher_is_killed_and_follow_its_successor(
    http: httpx.Client, serving: Settings, registry: Registry, versions: dict[str, float]
) -> None:
    from raysys.serving.watcher import ensure_watcher

    one, two = versions
    promote(registry, http, one)
    pid = ensure_watcher().call("pid")
    with load(serving.http_url) as seen:
        psutil.Process(pid).kill()
        promote(registry, http, two)
    assert seen.keys() == {200}


def test_a_killed_haproxy_costs_what_was_in_flight(
    http: httpx.Client, serving: Settings, versions: dict[str, float]
) -> None:
    def running(configuration: str = "haproxy.cfg") -> set[psutil.Process]:
        found = own_processes(serving, configuration)
        return {p for p in found if p.info["name"] == "haproxy"}

    until(lambda: http.get("/readyz?family=insurance").is_success)
    with load(serving.http_url) as seen:
        until(lambda: seen[200] > 20)
        there = running()
        for process in there:
            process.kill()
        until(lambda: running() - there and not running("b.cfg"), 60)
        answered = seen[200]
        until(lambda: seen[200] > answered + 20)
    assert sum(count for kind, count in seen.items() if kind != 200) <= 4, seen


def test_without_mlflow_replicas_serve_and_a_new_one_takes_the_last_good_version(
    http: httpx.Client,
    serving: Settings,
    mlflow: Mlflow,
    registry: Registry,
    versions: dict[str, float],
) -> None:
    one, two = versions
    promote(registry, http, two)
    mlflow.stop()
    try:
        assert not registry.healthy()
        assert served_version(http) == two
        killed(serving, "ServeReplica:insurance")
        until(lambda: http.get("/readyz?family=insurance").is_success, 60)
        assert served_version(http) == two
    finally:
        mlflow.start()
    promote(registry, http, one)


def failing_model(age: float) -> bytes:
    """Return a model of `insurance` that is infinite for people of one age."""
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["only_age"]),
        helper.make_node("Sub", ["only_age", "age"], ["apart"]),
        helper.make_node("Reciprocal", ["apart"], ["y"]),
    ]
    constants = [
        helper.make_tensor("w", TensorProto.FLOAT, [6, 1], [1.0] + [0.0] * 5),
        helper.make_tensor("age", TensorProto.FLOAT, [1], [age]),
    ]
    graph = helper.make_graph(
        nodes,
        "failing",
        [value("x", TensorProto.FLOAT, [None, 6])],
        [value("y", TensorProto.FLOAT, [None, 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def try_out(
    serving: Settings, http: httpx.Client, version: str, bake_seconds: float
) -> tuple[Any, Counter[Any]]:
    """Let a version be tried on every second request; return the run's report and who answered."""
    answered: Counter[Any] = Counter()
    with durable.Client(serving) as client:
        run = client.start("canary", "insurance", version, 50.0, 0.0, bake_seconds)
        while not client.run(run).ended:
            for _ in range(20):
                answer = http.post("/predict/insurance", json={**EXAMPLE, "age": 31})
                answered[answer.json()["model"]["version"] if answer.is_success else answer] += 1
        return client.run(run), answered


def test_a_failing_challenger_is_taken_back_and_no_caller_notices(
    http: httpx.Client, serving: Settings, registry: Registry, versions: dict[str, float]
) -> None:
    good = next(iter(versions))
    promote(registry, http, good)
    bad = register(serving, "insurance", failing_model(31))
    run, answered = try_out(serving, http, bad, bake_seconds=120)
    assert run.status == "SUCCESSFUL", run.error
    assert not run.output["promoted"]
    assert "it fails" in run.output["reason"]
    assert answered.keys() == {good}
    assert registry.aliases()["insurance"] == {"champion": good}
    moves = http.get("/admin/models/insurance/history", headers=ADMIN).json()
    assert [m["action"] for m in moves][:2] == ["rollback", "canary"]
    assert "it fails" in moves[0]["reason"]


def test_a_challenger_that_the_truth_proves_wrong_is_taken_back_while_it_bakes(
    http: httpx.Client, serving: Settings, registry: Registry, versions: dict[str, float]
) -> None:
    good = next(iter(versions))
    promote(registry, http, good)
    people = [{**EXAMPLE, "age": age} for age in range(20, 60)]
    truth = [http.post("/predict/insurance", json=each).json()["result"] for each in people]
    wrong = register(serving, "insurance", scaled_model("insurance", 9.0))
    with durable.Client(serving) as client:
        run = client.start("canary", "insurance", wrong, 50.0, 0.0, 300.0)
        while not client.run(run).ended:
            answers = [http.post("/predict/insurance", json=each) for each in people]
            said = [
                {"request_id": answer.headers["x-request-id"], "value": value}
                for answer, value in zip(answers, truth, strict=True)
            ]
            assert http.post("/feedback/insurance", json=said).status_code == 202
        report = client.run(run).output
    assert not report["promoted"]
    assert "it is wrong: live mae" in report["reason"]
    assert registry.aliases()["insurance"] == {"champion": good}


def test_a_good_challenger_is_promoted_after_its_bake_time(
    http: httpx.Client, serving: Settings, registry: Registry, versions: dict[str, float]
) -> None:
    one, two = versions
    promote(registry, http, one)
    run, answered = try_out(serving, http, two, bake_seconds=10)
    assert run.status == "SUCCESSFUL", run.error
    assert run.output["promoted"], run.output["reason"]
    assert answered.keys() == {one, two}
    assert registry.aliases()["insurance"] == {"champion": two}


def test_more_callers_than_may_wait_are_refused_at_once(
    http: httpx.Client, serving: Settings, versions: dict[str, float]
) -> None:
    body = httpx.Request("POST", serving.http_url, json=EXAMPLE).content.decode()
    target = Target(f"{serving.http_url}/predict/insurance", body)
    with Probe(target) as probe:
        flood = run_load(target, 400, 10)
    assert flood.cut == 0
    assert flood.failed > 0
    assert probe.statuses.keys() <= {"200", "503"}
    assert probe.without_retry_after == 0
    assert http.post("/predict/insurance", json=EXAMPLE).status_code == 200


def test_predictions_are_logged_under_their_request_id(
    http: httpx.Client, serving: Settings, versions: dict[str, float]
) -> None:
    from raysys.store.tables import predictions

    engine = db.open_engine(serving.database)

    def logged() -> Any:
        # Again and again: what is logged is a sample, and others may have filled this second's.
        http.post("/predict/insurance", json=EXAMPLE, headers={"x-request-id": "logged-1"})
        query = predictions.select().where(predictions.c.request_id == "logged-1")
        with db.reading(engine) as connection:
            return connection.execute(query).all()

    try:
        row, *_ = until(logged)
    finally:
        engine.dispose()
    assert (row.family, row.inputs) == ("insurance", EXAMPLE)


def test_replicas_follow_the_load_up_and_down(
    http: httpx.Client, serving: Settings, versions: dict[str, float]
) -> None:
    def replicas() -> int:
        from ray import serve

        (model,) = serve.status().applications["insurance"].deployments.values()
        return model.replica_states.get("RUNNING", 0)

    body = httpx.Request("POST", serving.http_url, json=EXAMPLE).content.decode()
    target = Target(f"{serving.http_url}/predict/insurance", body)
    crowds = [run_load(target, 32, 5)]
    while replicas() < 2:
        assert len(crowds) < 18, "no second replica after a minute and a half of load"
        crowds.append(run_load(target, 32, 5))
    assert [(crowd.failed, crowd.cut) for crowd in crowds] == [(0, 0)] * len(crowds)
    until(lambda: replicas() == 1, 150)
