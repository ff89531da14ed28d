"""The composition root: settings in, opened resources out, closed in reverse order; no logic lives here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from raysys import db
from raysys.artifacts import Artifacts
from raysys.registry import Registry
from raysys.settings import Settings

if TYPE_CHECKING:
    import sqlalchemy as sa

    from raysys.durable import Client
    from raysys.tracking import Tracking

T = TypeVar("T")


class Runtime:
    """Everything a step, a command or a route may need, opened at first use.

    Use it as a context manager: what was opened is closed when the block ends, the last opened first.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()

    @cached_property
    def engine(self) -> sa.Engine:
        """The application's database."""
        engine = db.open_engine(self.settings.database)
        self._opened.callback(engine.dispose)
        return engine

    @cached_property
    def artifacts(self) -> Artifacts:
        """The store of snapshots, models and studies."""
        return Artifacts(self.settings.artifact_root)

    @cached_property
    def registry(self) -> Registry:
        """The model registry, over REST."""
        return self._opened.enter_context(Registry(self.settings.tracking_uri))

    @cached_property
    def tracking(self) -> Tracking:
        """The experiment tracker; importing MLflow takes seconds, so only training steps touch this."""
        from raysys.tracking import Tracking

        return self._opened.enter_context(Tracking(self.settings.tracking_uri))

    @cached_property
    def durable(self) -> Client:
        """The client of the workflow engine."""
        from raysys.durable import Client

        client = Client(self.settings)
        self._opened.callback(client.close)
        return client

    def pings(self) -> dict[str, Callable[[], object]]:
        """Return one check a resource, by name; a check raises when its resource does not answer."""
        return {"database": self._ping_database, "mlflow": self._ping_registry}

    def _ping_database(self) -> None:
        import sqlalchemy as sa

        with db.reading(self.engine) as connection:
            connection.execute(sa.text("SELECT 1"))

    def _ping_registry(self) -> None:
        self.registry.aliases()
