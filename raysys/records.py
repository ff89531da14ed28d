"""The frozen records that cross modules and processes: plain data, JSON both ways, no behaviour."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec

T = TypeVar("T")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The base of every record; change one with `msgspec.structs.replace`."""


def plain(record: Any) -> Any:
    """Return `record` as dicts, lists, strings and numbers; times become ISO 8601 text."""
    return msgspec.to_builtins(record)


def revive(value: Any, kind: type[T]) -> T:
    """Return the record of type `kind` that `plain` turned into `value`."""
    return msgspec.convert(value, kind)


class Window(Record, frozen=True):
    """Hours from `start` to `end`, both included, aware UTC."""

    start: datetime
    end: datetime


class Gap(Record, frozen=True):
    """A run of `hours` hours without a value, `start` and `end` included; `filled` when a snapshot interpolated it."""

    column: str
    start: datetime
    end: datetime
    hours: int
    filled: bool = False


class Rejection(Record, frozen=True):
    """A row that was not stored: where it stood (`line` of a file, or a `key`), why, and what it held."""

    key: str
    reason: str
    line: int | None = None
    raw: dict[str, Any] = {}


class ImportReport(Record, frozen=True):
    """What an import did: rows read, stored anew, already known, rejected; columns not used."""

    family: str
    source: str
    read: int
    new: int
    known: int
    rejected: list[Rejection] = []
    ignored: list[str] = []


class WindowReport(Record, frozen=True):
    """What one window of a crawl brought: rows as in `ImportReport`, and the hours that the source does not have."""

    window: Window
    read: int
    new: int
    known: int
    rejected: int
    missing_hours: int


class CrawlReport(Record, frozen=True):
    """What a whole crawl brought, and what is left for the next one."""

    family: str
    source: str
    series: str
    windows: int
    read: int
    new: int
    known: int
    rejected: int
    missing_hours: int
    failed: list[str] = []
    stopped: str | None = None


class Snapshot(Record, frozen=True):
    """An immutable table of rows, named by the hash of its content; `uri` is its Parquet file."""

    hash: str
    family: str
    uri: str
    rows: int
    time_from: datetime | None = None
    time_to: datetime | None = None
    gaps: list[Gap] = []
    created_at: datetime | None = None


class Trial(Record, frozen=True):
    """One configuration that a study tried, with its last validation metric (lower is better)."""

    trial_id: str
    run_id: str
    config: dict[str, Any]
    metric: float
    seconds: float
    epochs: int = 1


class Study(Record, frozen=True):
    """The outcome of a search: every trial, best first, and the one that won on validation."""

    family: str
    metric_name: str
    best: Trial
    trials: list[Trial]


class ModelFile(Record, frozen=True):
    """An exported ONNX model in the artifact store, with its SHA-256 and what is needed to judge it."""

    uri: str
    sha256: str
    size_bytes: int
    config: dict[str, Any]
    parity: float
    parity_rows: int


class Evaluation(Record, frozen=True):
    """Metrics on the same held-out rows: `scores[who][metric]`, who is `model`, `champion` or a baseline's name."""

    rows: int
    scores: dict[str, dict[str, float]]
    champion_version: str | None = None


class Verdict(Record, frozen=True):
    """What the gate said, check by check."""

    passed: bool
    reason: str
    checks: dict[str, bool] = {}


# The tags of a version in the registry.
SHA256_TAG = "raysys.sha256"
PATH_TAG = "raysys.model_path"
WORKFLOW_TAG = "raysys.workflow_id"
SNAPSHOT_TAG = "raysys.snapshot"
SEED_TAG = "raysys.seed"
SCORES_TAG = "raysys.scores"
VERDICT_TAG = "raysys.verdict"
REASON_TAG = "raysys.reason"


class ModelVersion(Record, frozen=True):
    """A version of a family's model in the registry; `model_uri` is where its ONNX file lies."""

    family: str
    version: str
    run_id: str
    sha256: str
    model_uri: str
    aliases: list[str] = []
    created_at: datetime | None = None
    tags: dict[str, str] = {}


class Promotion(Record, frozen=True):
    """One move of an alias, never changed afterwards."""

    id: str
    family: str
    alias: str
    action: Literal["promote", "rollback", "adopt", "canary"]
    to_version: str
    from_version: str | None
    actor: str
    reason: str
    at: datetime
    report: dict[str, Any] = {}


class Event(Record, frozen=True):
    """A line in the life of a workflow run, for progress and for its history."""

    workflow_id: str
    at: datetime
    step: str
    message: str
    done: int | None = None
    total: int | None = None
    fields: dict[str, Any] = {}


class TrainReport(Record, frozen=True):
    """The outcome of a training: what was made, how it scored, and whether it serves.

    `search_metric` is the winner's metric on the validation rows, or over the folds, of the search.
    """

    family: str
    snapshot: str
    rows: int
    trials: int
    version: str
    run_id: str
    metric_name: str
    evaluation: Evaluation
    verdict: Verdict
    promoted: bool
    search_metric: float
    best: dict[str, Any] = {}


class Feedback(Record, frozen=True):
    """What a prediction should have said: its `values` by place, None where it is not known.

    The prediction is row `row` of the request `request_id`, or of those that its caller named `key`.
    """

    values: list[float | None]
    request_id: str | None = None
    key: str | None = None
    row: int = 0


class JoinReport(Record, frozen=True):
    """What one join of predictions with their truth did.

    Predictions: `placed` in their series or not (`unplaced` so far), `skipped` as not of the sample, `completed`,
    `expired` without the whole truth. Truths, by value: `added`, `repeated` (said again, the same), `revised` (said
    otherwise, the latest wins), `outdated` (said otherwise, and earlier than what is known). Feedback: `matched` with
    predictions or not (`unmatched` so far), `surplus` values that no output has a place for.
    """

    family: str
    placed: int = 0
    unplaced: int = 0
    skipped: int = 0
    completed: int = 0
    expired: int = 0
    added: int = 0
    repeated: int = 0
    revised: int = 0
    outdated: int = 0
    matched: int = 0
    unmatched: int = 0
    surplus: int = 0


class QualityWindow(Record, frozen=True):
    """How a version did from `since` (included) to `until` (not).

    `predictions` of the sample were made then, `placed` of them are where truth can reach, `wanted` values were
    predicted and `values` of these have their truth. `error` is the family's metric over these, `baseline_error` that
    of the gate's baseline on the same; None without values. `surprise` is the largest error of one value, as a share
    of the largest that the version's test rows had, each place of an answer by its own measure; None where not asked.
    """

    family: str
    version: str
    since: datetime
    until: datetime
    predictions: int
    placed: int
    wanted: int
    values: int
    error: float | None = None
    baseline_error: float | None = None
    surprise: float | None = None

    @property
    def coverage(self) -> float:
        """The share of the predicted values that have their truth; 0 without any."""
        return self.values / self.wanted if self.wanted else 0.0


class VersionQuality(Record, frozen=True):
    """A version's live error over all the time and window by window, beside the error of its own test rows."""

    version: str
    aliases: list[str]
    test_error: float | None
    overall: QualityWindow | None
    windows: list[QualityWindow] = []


class QualityReport(Record, frozen=True):
    """How the versions of a family do on live traffic, newest first, as of `at`."""

    family: str
    metric: str
    unit: str
    at: datetime
    versions: list[VersionQuality] = []


class Drift(Record, frozen=True):
    """How far the live values of one feature are from those of the served version's snapshot.

    `score` is the worst statistic over its threshold: above 1 it drifted, and None says that `reason` forbids to tell.
    `lasted` counts the days, this one and those before without a break, on which it was above 1.
    `psi` is the population stability index, `ks` the largest difference of the two distributions (0 to 1), `distance`
    the Wasserstein distance in the feature's own unit (in which a value beyond the outer tenths is one of theirs).
    `live` counts the values that were compared. `kind` is `input`
    for what the model is asked and would be trained with, `relation` for such a value as far as the others explain it,
    `context` for other columns of the source, and `output` for its answers.
    """

    feature: str
    kind: Literal["input", "relation", "context", "output"]
    live: int
    score: float | None = None
    lasted: int = 0
    psi: float | None = None
    ks: float | None = None
    distance: float | None = None
    reason: str = ""


class Act(Record, frozen=True):
    """What the policy of a family did or, in a dry run, would have done; `evidence` is what it was decided by.

    `recover` says that what was acted on is over, so that it is acted on when it comes again.
    """

    id: str
    family: str
    at: datetime
    action: Literal["retrain", "rollback", "alert", "recover"]
    reason: str
    evidence: dict[str, Any] = {}
    dry_run: bool = False
    workflow_id: str | None = None


class Level(Record, frozen=True):
    """A measured value of a metric that `raysys.metrics` declares, by its name and labels."""

    name: str
    value: float
    labels: dict[str, str]


class MaintenanceReport(Record, frozen=True):
    """What a maintenance removed (or would, in a dry run): how many of each kind, and the first names.

    `closed` names the cancelled trainings whose MLflow runs were still open.
    """

    dry_run: bool
    removed: dict[str, int]
    names: dict[str, list[str]] = {}
    closed: list[str] = []


class Origin(Record, frozen=True):
    """Rows that one run of a workflow, or one import, stored; of hours, from when to when they are."""

    source: str
    rows: int
    workflow_id: str | None = None
    time_from: datetime | None = None
    time_to: datetime | None = None
    stored_at: datetime | None = None


class Lineage(Record, frozen=True):
    """Where an answer comes from, link by link; what is not known any more is None, and `remarks` say why.

    `recomputed` is the snapshot's hash as the stored rows give it today, without those stored after it was taken.
    """

    family: str
    version: str
    prediction_id: str | None = None
    request_id: str | None = None
    predicted_at: datetime | None = None
    aliases: list[str] = []
    run_id: str | None = None
    run_url: str | None = None
    workflow_id: str | None = None
    snapshot: Snapshot | None = None
    series: str | None = None
    origins: list[Origin] = []
    recomputed: str | None = None
    remarks: list[str] = []

    @property
    def same(self) -> bool:
        """Whether the stored rows still give the snapshot."""
        return self.snapshot is not None and self.recomputed == self.snapshot.hash


class LoadedVersion(Record, frozen=True):
    """What one replica serves now."""

    replica: str
    family: str
    version: str
    sha256: str
    loaded_at: datetime
    refused: str | None = None


RunStatus = Literal["RUNNING", "PENDING", "FAILED", "RESUMABLE", "CANCELED", "SUCCESSFUL"]


class Run(Record, frozen=True):
    """A run of a workflow. RESUMABLE: it stopped without an end, and only `resume` makes it go on."""

    id: str
    name: str
    status: RunStatus
    args: list[Any]
    created_at: datetime
    family: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    deadline: datetime | None = None
    attempts: int = 0
    output: Any = None
    error: str | None = None
    error_type: str | None = None
    schedule: str | None = None
    forked_from: str | None = None
    parent: str | None = None

    @property
    def ended(self) -> bool:
        """Whether it will not go on by itself."""
        return self.status not in ("RUNNING", "PENDING")


class StepRun(Record, frozen=True):
    """A step of a run; `where` is the node and process that ran it, `child` the run that it started.

    `task_id` is Ray's id of the task that did it last.
    """

    number: int
    name: str
    status: RunStatus
    attempts: int = 1
    started_at: datetime | None = None
    ended_at: datetime | None = None
    seconds: float | None = None
    where: str | None = None
    task_id: str | None = None
    output: Any = None
    error: str | None = None
    child: str | None = None


class Schedule(Record, frozen=True):
    """A workflow that starts by the clock: five-field `cron` in the time zone `zone`."""

    name: str
    workflow: str
    args: list[Any]
    cron: str
    zone: str = "UTC"
    only_if: str | None = None
    paused: bool = False
    last_at: datetime | None = None
    next_at: datetime | None = None
