"""Every setting of raysys, read once into one frozen object; nothing else reads the environment."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    JsonConfigSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from raysys.errors import InvalidInput

HOME_NAME = ".raysys"
CONFIG_NAME = "raysys.toml"
RUNNING_NAME = "running.json"
EVERY = "all"  # the policy of families that have none of their own

# What `Settings()` raises; `refusal` says it to people.
UNREADABLE = (ValidationError, SettingsError, tomllib.TOMLDecodeError)

AtmosSource = Literal["kma", "open-meteo", "sample"]
Port = Annotated[int, Field(ge=1, le=65535)]


def nearest_home(start: Path) -> Path:
    """Return the `.raysys` folder of `start` or of its nearest parent that has one, else `start/.raysys`."""
    for folder in (start, *start.parents):
        if (folder / HOME_NAME).is_dir():
            return folder / HOME_NAME
    return start / HOME_NAME


def _absolute(value: Any) -> Any:
    return Path(value).expanduser().absolute() if isinstance(value, str | Path) else value


class Policy(BaseModel):
    """When the quality loop of one family trains anew, rolls back, or only tells."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dry_run: bool = Field(
        False, description="Decisions are recorded and shown, and nothing is done."
    )
    window_hours: int = Field(
        24,
        ge=1,
        le=744,
        description="Length of the windows that live error is judged in, in hours.",
    )
    windows: int = Field(4, ge=1, le=100, description="Newest judged windows that are looked at.")
    bad_windows: int = Field(
        3, ge=1, le=100, description="Bad ones among them that start a training."
    )
    least_values: int = Field(
        30, ge=1, description="Predicted values with their truth that a window is judged by."
    )
    error_tolerance: float = Field(
        0.5,
        gt=0,
        description="A window is bad when its error is above the version's own test error by this share, and its "
        "error over the baseline's is as much worse than it was in the test.",
    )
    alert_tolerance: float = Field(
        1.25,
        gt=0,
        description="Share above the test error at which one window is told, whatever the baseline did.",
    )
    jump_tolerance: float = Field(
        0.35,
        gt=0,
        description="Share above the largest error of the test, each hour ahead by its own measure, at which one value "
        "is told.",
    )
    drift_days: int = Field(
        5, ge=1, le=60, description="Newest days whose values are compared with the snapshot's."
    )
    drift_checks: int = Field(
        3, ge=1, le=30, description="Days one after the other that a drift must last to count."
    )
    age_days: float = Field(
        90, gt=0, description="Age of the champion's rows at which it is trained anew, in days."
    )
    new_share: float = Field(
        0.5,
        gt=0,
        description="New rows, as a share of the champion's rows, at which it is trained anew.",
    )
    clear_share: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Share of a threshold below which what was above it counts as over.",
    )
    cooldown_hours: float = Field(
        24,
        ge=0,
        description="Least time after a training, whoever started it, before the policy starts one, in hours.",
    )
    daily_budget: int = Field(
        1, ge=0, description="Most trainings that the policy starts within 24 hours; 0 only tells."
    )
    patience_days: float = Field(
        7, ge=0, description="Days until a cause that a training did not end starts the next one."
    )
    rollback_margin: float = Field(
        0.1,
        gt=0,
        description="Share by which a new champion's error must be above its predecessor's on the same requests, in "
        "`bad_windows` windows, to be rolled back; at once when it is twice as large.",
    )
    rollback_days: float = Field(
        14, gt=0, description="Days after a promotion in which it may be rolled back."
    )
    trials: int | None = Field(
        None, ge=1, le=1000, description="Trials of a training it starts; `train_trials` if none."
    )

    @model_validator(mode="after")
    def _can_be_bad(self) -> Self:
        if self.bad_windows > self.windows:
            raise ValueError(
                f"bad_windows is {self.bad_windows}, and of {self.windows} windows no more can be bad"
            )
        return self


class Settings(BaseSettings):
    """What raysys was told: `RAYSYS_*` variables, then `raysys.toml`, then these defaults.

    `raysys.toml` is looked for in the working directory and then in the home. While `up` runs, what it was told stands
    in for the defaults, so that a command in another terminal finds the same ports and database.
    """

    model_config = SettingsConfigDict(
        env_prefix="RAYSYS_", frozen=True, extra="ignore", populate_by_name=True
    )

    home: Annotated[Path, BeforeValidator(_absolute)] = Field(
        default_factory=lambda: nearest_home(Path.cwd()),
        description="Folder of everything that raysys keeps on this machine.",
    )
    database_url: str = Field(
        "", description="SQLAlchemy URL; a SQLite file in the home by default."
    )
    artifacts: str = Field(
        "",
        description="Folder or fsspec URL of snapshots, models and studies; in the home by default.",
    )
    mlflow_tracking_uri: str = Field(
        "",
        description="MLflow server to use; by default `up` starts one of its own on `mlflow_port`.",
    )
    hook_url: str = Field(
        "",
        description="Root of this server as MLflow reaches it, to be told at once of a moved alias; the aliases are "
        "asked for every second in any case.",
    )
    http_host: str = Field("127.0.0.1", description="Address that predictions are served on.")
    http_port: Port = Field(8000, description="TCP port that predictions are served on.")
    mlflow_port: Port = Field(5000, description="TCP port of the MLflow server that `up` starts.")
    api_token: SecretStr = Field(
        SecretStr(""),
        description="Bearer token of /admin; made at the first `up` when empty, kept in the home.",
    )
    max_body_bytes: int = Field(
        1_000_000, ge=1_000, description="Largest request body that is read, in bytes."
    )
    body_seconds: float = Field(
        10.0, gt=0, description="Longest wait for the rest of a request body, in seconds."
    )
    predict_keys: SecretStr = Field(
        SecretStr(""),
        description="Keys that callers of /predict must send as X-API-Key: NAME=KEY or NAME=KEY@RATE (requests a "
        "second and replica), separated by commas; no key is needed when empty.",
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="Origins whose pages may call the API from a browser; none when empty."
    )
    prediction_log_per_second: int = Field(
        50,
        ge=0,
        description="Most requests that one replica logs each second, a fair sample of all; 0 logs none.",
    )
    prediction_log_share: float = Field(
        1.0, ge=0, le=1, description="Share of the requests that may be logged."
    )
    metrics: bool = Field(True, description="Whether replicas count requests and send metrics.")
    families: tuple[str, ...] = Field(
        (),
        description="Families to serve and to schedule, by name; every installed family when empty.",
    )

    ray_address: str = Field(
        "",
        alias="RAY_ADDRESS",
        description="Address of a running Ray cluster; `up` starts one of its own when empty.",
    )
    ray_port: Port = Field(6379, description="TCP port of the Ray head's control store.")
    ray_dashboard_port: Port = Field(8265, description="TCP port of the Ray dashboard and job API.")
    ray_client_port: Port = Field(10001, description="TCP port of Ray's client server.")
    ray_agent_port: Port = Field(52365, description="TCP port of the node's dashboard agent.")
    ray_metrics_port: Port = Field(
        8080, description="TCP port that the node's Prometheus metrics are read from."
    )
    ray_autoscaler_metrics_port: Port = Field(
        44217, description="TCP port that the head's autoscaler gives its metrics on."
    )
    ray_dashboard_metrics_port: Port = Field(
        44227, description="TCP port that the Ray dashboard gives its metrics on."
    )
    haproxy_metrics_port: Port = Field(9101, description="TCP port of HAProxy's own metrics.")
    haproxy_stats_port: Port = Field(8404, description="TCP port of HAProxy's page of statistics.")
    fallback_port: Port = Field(
        8500, description="TCP port of the proxy that answers for no replica."
    )
    replica_cpus: float = Field(0.1, ge=0, description="CPUs that Ray sets aside for one replica.")
    service_resource: str = Field(
        "",
        pattern="^[a-z_]*$",
        description="Ray resource that replicas, worker and watcher take instead of CPUs, so that they run only on "
        "nodes that have it; anywhere when empty.",
    )
    min_replicas: int = Field(
        1, ge=1, le=1000, description="Fewest replicas of one family, and of the gateway."
    )
    max_replicas: int = Field(2, ge=1, le=1000, description="Most replicas of one family.")
    num_cpus: int | None = Field(
        None, ge=1, description="CPUs that Ray may plan with; all of the machine by default."
    )

    atmos_source: AtmosSource = Field("sample", description="Where hourly weather comes from.")
    atmos_station: str = Field(
        "108", description="Station that is crawled (KMA number; 108 is Seoul)."
    )
    atmos_zone: str = Field(
        "Asia/Seoul", description="Zone of imported times that name none (IANA name)."
    )
    atmos_latitude: float = Field(
        37.5714, ge=-90, le=90, description="Latitude for open-meteo, in degrees."
    )
    atmos_longitude: float = Field(
        126.9658, ge=-180, le=180, description="Longitude for open-meteo, in degrees."
    )
    atmos_history_days: int = Field(
        730, ge=10, description="Days that a crawl without `since` reaches back at first."
    )
    kma_service_key: SecretStr = Field(
        SecretStr(""), description="Service key of data.go.kr, decoded or encoded form."
    )
    kma_base_url: str = Field(
        "https://apis.data.go.kr/1360000", description="Root of the KMA service."
    )
    kma_publication_hour: int = Field(
        11, ge=0, le=23, description="Hour of the day (KST) from which KMA has all of yesterday."
    )
    open_meteo_base_url: str = Field(
        "https://archive-api.open-meteo.com", description="Root of the Open-Meteo archive."
    )
    source_timeout_seconds: float = Field(
        20.0, gt=0, description="Longest wait for one answer of a source, in seconds."
    )
    source_attempts: int = Field(
        6, ge=1, le=20, description="Attempts for one page of a source before it is given up."
    )
    source_backoff_seconds: float = Field(
        0.5, ge=0, description="First pause between attempts, in seconds; doubles."
    )

    train_trials: int = Field(
        10, ge=1, le=1000, description="Trials of a study when the caller names no number."
    )
    trial_cpus: float = Field(1.0, gt=0, description="CPUs of one trial.")
    seed: int = Field(20260101, ge=0, description="Seed of every random choice of a training.")

    keep_run_days: int = Field(
        90, ge=1, description="Days that an ended run is kept, with its events and logs."
    )
    keep_runs: int = Field(5_000, ge=1, description="Most ended runs that are kept.")
    keep_study_days: int = Field(
        14, ge=1, description="Days that the study of a successful training is kept."
    )
    keep_snapshot_days: int = Field(180, ge=1, description="Days that a snapshot is kept.")
    keep_snapshots: int = Field(100, ge=1, description="Most snapshots of one family.")
    keep_version_days: int = Field(
        365, ge=1, description="Days that a version is kept that never was champion."
    )
    keep_versions: int = Field(
        100, ge=1, description="Most versions of one family that never were champion."
    )
    keep_prediction_days: int = Field(30, ge=1, description="Days that predictions are kept.")
    keep_predictions: int = Field(
        2_000_000, ge=1, description="Most logged predictions that are kept."
    )

    truth_wait_days: int = Field(
        14, ge=1, description="Days that a prediction waits for its truth; then what came counts."
    )
    truth_per_hour: int = Field(
        200,
        ge=1,
        description="Most predictions of one version and hour that are joined with the hours crawled later, a fair "
        "sample of all; truth that is sent in is always joined.",
    )

    policy: dict[str, Policy] = Field(
        default_factory=dict,
        description="What the quality loop does, by family: the tables [policy.all] and, above it, [policy.FAMILY].",
    )

    log_format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="`json` lines, `console` text, or `auto`: text on a terminal, JSON elsewhere.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least level that is logged."
    )
    log_file: str = Field(
        "",
        description="File of JSON lines that every process appends to; logs/raysys.jsonl in the home by default, "
        "`none` for no file.",
    )
    log_file_bytes: int = Field(
        20_000_000, ge=10_000, description="Size from which a new log file is begun, in bytes."
    )
    log_files: int = Field(5, ge=1, le=100, description="Full log files that are kept.")
    log_requests: bool = Field(
        False, description="Whether replicas log each request: id, version, status, time."
    )
    log_inputs: bool = Field(
        False, description="Whether these records hold what was asked and answered, too."
    )

    @field_validator("policy", mode="before")
    @classmethod
    def _above_all(cls, given: Any) -> Any:
        """Give each family what `all` says where it says nothing itself."""
        if not (isinstance(given, dict) and all(isinstance(v, dict) for v in given.values())):
            return given
        return {family: {**given.get(EVERY, {}), **rules} for family, rules in given.items()}

    @field_validator("atmos_zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        try:
            return ZoneInfo(zone).key
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{zone!r} is no time zone; use a name such as Asia/Seoul") from None

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str) -> str:
        if url and not url.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg2://")):
            raise ValueError(
                "use sqlite:///FILE or postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE"
            )
        return url.replace("postgresql://", "postgresql+psycopg2://", 1)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the base names it
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: arguments, environment, `raysys.toml`, what runs now, defaults."""
        known = {**env_settings(), **init_settings()}
        home = Path(known.get("home") or nearest_home(Path.cwd()))
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(
                settings_cls, toml_file=[home / CONFIG_NAME, Path.cwd() / CONFIG_NAME]
            ),
            JsonConfigSettingsSource(settings_cls, json_file=home / RUNNING_NAME),
        )

    def policy_of(self, family: str) -> Policy:
        """Return what the quality loop does for `family`."""
        return self.policy.get(family, self.policy.get(EVERY, Policy()))

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.home / 'raysys.db'}"

    @property
    def workflow_database(self) -> str:
        """The SQLAlchemy URL of the workflow engine: a file of its own on SQLite, the same database on Postgres."""
        if self.database.startswith("sqlite"):
            return self.database.removesuffix(".db") + "-workflows.db"
        return self.database

    @property
    def log_path(self) -> Path | None:
        """The file that every process logs to, or None."""
        if self.log_file == "none":
            return None
        return Path(self.log_file) if self.log_file else self.home / "logs" / "raysys.jsonl"

    @property
    def artifact_root(self) -> str:
        """The folder or URL of the artifact store, without a slash at its end."""
        return (self.artifacts or str(self.home / "artifacts")).rstrip("/")

    @property
    def tracking_uri(self) -> str:
        """The HTTP address of MLflow."""
        return (self.mlflow_tracking_uri or f"http://127.0.0.1:{self.mlflow_port}").rstrip("/")

    @property
    def runs_mlflow(self) -> bool:
        """Whether `up` starts an MLflow server of its own."""
        return not self.mlflow_tracking_uri

    @property
    def http_url(self) -> str:
        """The address that predictions are asked at from this machine."""
        host = "127.0.0.1" if self.http_host in ("0.0.0.0", "") else self.http_host  # noqa: S104  an address to compare with
        return f"http://{host}:{self.http_port}"

    @property
    def hook_root(self) -> str:
        """The root of this server as MLflow reaches it; empty when MLflow is not to tell of moved aliases."""
        return (self.hook_url or (self.http_url if self.runs_mlflow else "")).rstrip("/")

    @property
    def dashboard_url(self) -> str:
        """The address of the Ray dashboard and job API on this machine."""
        return f"http://127.0.0.1:{self.ray_dashboard_port}"

    @property
    def session_folder(self) -> Path:
        """The folder of Ray's session: short, since a UNIX socket path may have 107 bytes at most."""
        digest = hashlib.sha256(str(self.home).encode()).hexdigest()[:10]
        return Path("/tmp") / f"raysys-{digest}"  # noqa: S108  TMPDIR may be long; logs are in it, no secrets

    def changed(self) -> dict[str, Any]:
        """Return what differs from the defaults, secrets in the clear, as JSON would hold it."""
        return {
            name: _plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if name != "home"
            and getattr(self, name) != field.get_default(call_default_factory=True)
        }

    def environment(self) -> dict[str, str]:
        """Return the variables that make a child process read these very settings."""
        fields = type(self).model_fields
        values = {
            str(fields[name].alias or f"RAYSYS_{name.upper()}"): json.dumps(v)
            if isinstance(v, list | dict)
            else str(v)
            for name, v in self.changed().items()
        }
        return {**values, "RAYSYS_HOME": str(self.home)}


def refusal(error: Exception) -> InvalidInput:
    """Return what is wrong with the settings, one fault a setting, by the error that `Settings()` raised."""
    if isinstance(error, ValidationError):
        issues = [
            {"loc": list(fault["loc"]), "reason": fault["msg"].removeprefix("Value error, ")}
            for fault in error.errors(include_input=False)
        ]
    else:
        toml = isinstance(error, tomllib.TOMLDecodeError)
        issues = [{"loc": [CONFIG_NAME if toml else "RAYSYS_*"], "reason": str(error)}]
    return InvalidInput(
        f"The settings cannot be read. Correct the variable RAYSYS_NAME or the line in {CONFIG_NAME}:",
        issues=issues,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {key: each.model_dump() for key, each in value.items()}
    return list(value) if isinstance(value, tuple) else value
