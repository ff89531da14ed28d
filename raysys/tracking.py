"""The door to MLflow's tracking server: runs, trials, figures, and the registering of a model.

Every call names its run; MLflow's "current run" is never used, since trials of many processes
share it. Reading the registry and moving aliases is `raysys.registry`, without MLflow's library.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from raysys.errors import Conflict, NotFound, RaysysError, Unavailable
from raysys.records import PATH_TAG, SHA256_TAG, WORKFLOW_TAG, ModelVersion

Floats = NDArray[np.float32]
Status = Literal["FINISHED", "FAILED", "KILLED"]

TRIAL_TAG = "raysys.trial_id"
PARENT_TAG = "mlflow.parentRunId"
MODEL_FILE = "model.onnx"  # where MLflow's ONNX flavour puts the model below a version's root


class Tracking:
    """Runs of one MLflow server; the library (3 s, 200 MB) is imported by the first call.

    Every method raises Unavailable when the server does not answer, and Conflict when it refuses.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self._trials: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget the client; MLflow keeps no connection that must be closed."""
        self.__dict__.pop("_client", None)

    @cached_property
    def _client(self) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        # The default is 7 attempts over 4 minutes; the step that calls retries on its own.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        return MlflowClient(self.tracking_uri, registry_uri=self.tracking_uri)

    # -- runs ----------------------------------------------------------------------------------

    def open_run(self, family: str, workflow_id: str, tags: Mapping[str, str] | None = None) -> str:
        """Return the id of the run of a workflow, made in the experiment `family` when new."""
        with self._translated():
            experiment = self._experiment(family)
            known = self._search(experiment, {WORKFLOW_TAG: workflow_id})
            if known:
                return str(known[0].info.run_id)
            run = self._client.create_run(
                experiment,
                run_name=f"{family}-{workflow_id}",
                tags={**(tags or {}), WORKFLOW_TAG: workflow_id, "raysys.family": family},
            )
            return str(run.info.run_id)

    def open_trial(self, parent_run_id: str, trial_id: str, config: Mapping[str, Any]) -> str:
        """Return the id of a trial's run, nested under its study's; made with `config` when new."""
        with self._translated():
            known = self.trials(parent_run_id)
            if trial_id not in known:
                run = self._client.create_run(
                    self._client.get_run(parent_run_id).info.experiment_id,
                    run_name=trial_id,
                    tags={PARENT_TAG: parent_run_id, TRIAL_TAG: trial_id},
                )
                known[trial_id] = str(run.info.run_id)
            self.log_params(known[trial_id], config)
            return known[trial_id]

    def trials(self, parent_run_id: str) -> dict[str, str]:
        """Return the run of every trial of a study, by trial id."""
        if parent_run_id not in self._trials:
            with self._translated():
                experiment = self._client.get_run(parent_run_id).info.experiment_id
                runs = self._search(experiment, {PARENT_TAG: parent_run_id})
            self._trials[parent_run_id] = {
                run.data.tags[TRIAL_TAG]: str(run.info.run_id)
                for run in runs
                if TRIAL_TAG in run.data.tags
            }
        return self._trials[parent_run_id]

    def close_run(self, run_id: str, status: Status = "FINISHED") -> None:
        """End a run; ending it again only sets its status anew."""
        with self._translated():
            self._client.set_terminated(run_id, status)

    def close_left(self, run_id: str) -> int:
        """End a run and its trials as KILLED where they still run; return how many that were."""
        with self._translated():
            run = self._client.get_run(run_id)
            trials = self._search(run.info.experiment_id, {PARENT_TAG: run_id})
            left = [each for each in (run, *trials) if each.info.status == "RUNNING"]
            for each in left:
                self._client.set_terminated(each.info.run_id, "KILLED")
            return len(left)

    # -- what a run holds ----------------------------------------------------------------------

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Store parameters; the same again is fine, another value is a Conflict."""
        from mlflow.entities import Param

        with self._translated():
            rows = [Param(key, str(value)) for key, value in params.items()]
            self._client.log_batch(run_id, params=rows)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Store metrics at a step, in one request."""
        from mlflow.entities import Metric

        with self._translated():
            at = int(datetime.now(UTC).timestamp() * 1000)
            rows = [Metric(key, float(value), at, step) for key, value in metrics.items()]
            self._client.log_batch(run_id, metrics=rows)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Store tags; a tag that is there gets the new value."""
        from mlflow.entities import RunTag

        with self._translated():
            rows = [RunTag(key, value) for key, value in tags.items()]
            self._client.log_batch(run_id, tags=rows)

    def log_json(self, run_id: str, name: str, value: Any) -> None:
        """Store plain data as the artifact `name`.json."""
        with self._translated():
            self._client.log_text(run_id, json.dumps(value, indent=2, default=str), f"{name}.json")

    def log_figures(self, run_id: str, figures: Mapping[str, Any]) -> None:
        """Store matplotlib figures as PNG artifacts below `figures/`."""
        with self._translated(), tempfile.TemporaryDirectory(prefix="raysys-figures-") as folder:
            for name, figure in figures.items():
                figure.savefig(Path(folder) / f"{name}.png", dpi=100)
            self._client.log_artifacts(run_id, folder, "figures")

    # -- models --------------------------------------------------------------------------------

    def register(
        self,
        family: str,
        run_id: str,
        onnx: bytes,
        input_example: Floats,
        output_example: Floats,
        tags: Mapping[str, str],
        description: str = "",
    ) -> ModelVersion:
        """Store a model with MLflow's ONNX flavour and make it a version of `family`.

        `tags` must hold `raysys.workflow_id`: a workflow that comes again gets the version that it
        made before. The signature is that of the encoded float32 rows.
        """
        workflow_id = tags[WORKFLOW_TAG]
        with self._translated():
            known = self._version_of(family, workflow_id)
            if known is None:
                self._ensure_model(family)
                model = self._log_model(family, run_id, onnx, input_example, output_example)
                known = self._client.create_model_version(
                    family,
                    source=model.artifact_location,
                    run_id=run_id,
                    model_id=model.model_id,
                    tags={**tags, **_file_tags(onnx)},
                    description=description,
                    await_creation_for=None,  # on an open-source server it is there at once
                )
            return _record(known)

    def _log_model(
        self,
        family: str,
        run_id: str,
        onnx: bytes,
        input_example: Floats,
        output_example: Floats,
    ) -> Any:
        from mlflow.entities import LoggedModelOutput

        experiment = self._client.get_run(run_id).info.experiment_id
        model = self._client.create_logged_model(
            experiment, name=family, source_run_id=run_id, model_type="onnx"
        )
        with tempfile.TemporaryDirectory(prefix="raysys-model-") as folder:
            _save_onnx(Path(folder) / "model", onnx, input_example, output_example)
            self._client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
        model = self._client.finalize_logged_model(model.model_id, "READY")
        self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
        return model

    def _ensure_model(self, family: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(family)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _version_of(self, family: str, workflow_id: str) -> Any | None:
        query = f"name = '{family}' and tags.`{WORKFLOW_TAG}` = '{workflow_id}'"
        found = self._client.search_model_versions(query, max_results=1)
        return found[0] if found else None

    # -- inside --------------------------------------------------------------------------------

    def _experiment(self, family: str) -> str:
        from mlflow.exceptions import MlflowException

        known = self._client.get_experiment_by_name(family)
        if known is not None:
            return str(known.experiment_id)
        try:
            return str(self._client.create_experiment(family))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return str(self._client.get_experiment_by_name(family).experiment_id)

    def _search(self, experiment: str, tags: Mapping[str, str]) -> list[Any]:
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        return list(self._client.search_runs([experiment], query, max_results=1000))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise self._translation(error) from error

    def _translation(self, error: Any) -> RaysysError:
        status = error.get_http_status_code()
        if "API request to" in error.message or "Max retries" in error.message or status == 503:
            return Unavailable(
                f"MLflow at {self.tracking_uri} does not answer: {error.message}."
                " `raysys status` tells whether it runs.",
                mlflow=self.tracking_uri,
            )
        kind = NotFound if status == 404 else Conflict
        return kind(f"MLflow refused: {error.message}", code=error.error_code)


def _file_tags(onnx: bytes) -> dict[str, str]:
    return {SHA256_TAG: hashlib.sha256(onnx).hexdigest(), PATH_TAG: MODEL_FILE}


def _save_onnx(
    folder: Path,
    onnx: bytes,
    input_example: Floats,
    output_example: Floats,
) -> None:
    from importlib.metadata import version

    import mlflow.onnx
    from mlflow.models import infer_signature
    from onnx import load_from_string

    mlflow.onnx.save_model(
        load_from_string(onnx),
        str(folder),
        signature=infer_signature(input_example, output_example),
        input_example=input_example,
        # Given, not inferred: to infer them MLflow loads the model in a new process for 5 s.
        pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "onnx", "onnxruntime")],
        onnx_execution_providers=["CPUExecutionProvider"],
    )
    # MLflow writes the model anew; the file must be, byte for byte, the one that was judged.
    (folder / MODEL_FILE).write_bytes(onnx)


def _record(version: Any) -> ModelVersion:
    return ModelVersion(
        family=version.name,
        version=str(version.version),
        run_id=version.run_id or "",
        sha256=version.tags.get(SHA256_TAG, ""),
        model_uri=version.source,
        aliases=sorted(version.aliases or []),
        created_at=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        tags=dict(version.tags),
    )
