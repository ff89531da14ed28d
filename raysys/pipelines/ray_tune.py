"""What Ray Tune is given: trial, searcher, callback; it pickles them into the study's folder.

Only `raysys.pipelines.tune` imports this module, inside its search: Ray Tune takes seconds to import.
"""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ray import PlacementGroupID, tune
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from raysys import cluster, families, tracing
from raysys.families.base import Choice, Integer, Parts, Real, Space

METRIC = "validation"


class Listener(Protocol):
    """Who is told of the trials of a study, in the process that drives it."""

    def started(self, trial_id: str, config: Mapping[str, Any]) -> None:
        """Note that a trial starts, perhaps not for the first time."""

    def reported(self, trial_id: str, epoch: int, metric: float) -> None:
        """Note a validation metric."""

    def ended(self, trial_id: str, failed: bool) -> None:
        """Note that a trial finished, was stopped early, or failed."""


def trial(
    config: dict[str, Any], *, family_name: str, parts: Parts, seed: int, traceparent: str = ""
) -> None:
    """Try one configuration; every validation metric goes to Ray Tune, which may end the trial."""

    def report(epoch: int, metric: float) -> None:
        tune.report({"epoch": epoch, METRIC: metric})

    cluster.give_way()
    name = tune.get_context().get_trial_id()
    with tracing.span("trial", parent=traceparent, family=family_name, trial_id=name):
        families.get(family_name).validate(config, parts, seed, report)
    tracing.flush()


class Relay(tune.Callback):  # type: ignore[misc]  # Ray is not typed
    """Passes events on to the listener of this process.

    Tune pickles its callbacks and brings the old ones back when it restores a study. This one holds
    nothing, so that a restored study talks to the listener of its new process.
    """

    listener: ClassVar[Listener | None] = None

    @classmethod
    @contextmanager
    def to(cls, listener: Listener) -> Iterator[None]:
        """Let `listener` hear of every trial inside the block."""
        cls.listener = listener
        try:
            yield
        finally:
            cls.listener = None

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        """Pass on a start."""
        if self.listener:
            self.listener.started(trial.trial_id, trial.config)

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Pass on a report."""
        if self.listener and METRIC in result:
            self.listener.reported(trial.trial_id, result["epoch"], result[METRIC])

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        """Pass on an end."""
        if self.listener:
            self.listener.ended(trial.trial_id, failed=False)

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        """Pass on a failure."""
        if self.listener:
            self.listener.ended(trial.trial_id, failed=True)


class Search(Searcher):  # type: ignore[misc]  # Ray is not typed
    """Hands out the candidates first, then what Optuna's seeded TPE sampler asks for.

    A candidate inside the space teaches the sampler; one that lies outside is only tried.
    """

    def __init__(self, space: Space, candidates: Sequence[dict[str, Any]], seed: int) -> None:
        super().__init__(metric=METRIC, mode="min")
        self.outside = [c for c in candidates if c.keys() != space.keys()]
        self._waiting = list(self.outside)
        self._given: set[str] = set()
        self._sampler = OptunaSearch(
            {name: _distribution(values) for name, values in space.items()},
            metric=METRIC,
            mode="min",
            seed=seed,
            points_to_evaluate=[c for c in candidates if c.keys() == space.keys()],
        )

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the configuration of a new trial."""
        if self._waiting:
            self._given.add(trial_id)
            return self._waiting.pop(0)
        config: dict[str, Any] | None = self._sampler.suggest(trial_id)
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell the sampler how a trial does."""
        if trial_id not in self._given:
            self._sampler.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the sampler how a trial did."""
        if trial_id not in self._given:
            self._sampler.on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Write the state, from which `restore` goes on."""
        Path(checkpoint_path).write_bytes(pickle.dumps(self.__dict__))

    def restore(self, checkpoint_path: str) -> None:
        """Go on from a state that `save` wrote into the study's own folder."""
        self.__dict__.update(pickle.loads(Path(checkpoint_path).read_bytes()))  # noqa: S301


class Reservation(tune.PlacementGroupFactory):  # type: ignore[misc]  # Ray is not typed
    """The CPUs of one trial, reserved under a name that tells the study.

    A reservation outlives the process that made it as long as the cluster's job lives: a study whose
    driver was killed would hold its CPUs for good, and its own successor would wait for them.
    """

    def __init__(self, study: str, cpus: float) -> None:
        super().__init__([{"CPU": cpus}])
        self._study = study

    def to_placement_group(self) -> Any:
        """Ask Ray for the CPUs; names are unique in Ray."""
        name = f"{_reservations(self._study)}{uuid.uuid4().hex}"
        return placement_group(self.bundles, strategy=self.strategy, name=name)


def release(study: str) -> int:
    """Give back every reservation of a study that does not run; return how many there were."""
    held = [
        identity
        for identity, group in placement_group_table().items()
        if group["name"].startswith(_reservations(study)) and group["state"] != "REMOVED"
    ]
    for identity in held:
        remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(identity)))
    return len(held)


def _reservations(study: str) -> str:
    return f"raysys-study/{study}/"


def _distribution(values: Integer | Real | Choice) -> Any:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(values, Integer):
        return IntDistribution(values.low, values.high)
    if isinstance(values, Real):
        return FloatDistribution(values.low, values.high, log=values.log)
    return CategoricalDistribution(values.values)
