"""The decorators `workflow` and `step`: they describe functions, and the engine runs them; nothing is run here."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, update_wrapper
from inspect import signature
from typing import Any, Generic, Literal, ParamSpec, TypeVar, get_type_hints

from raysys.durable import context
from raysys.errors import Unavailable, WorkflowError
from raysys.records import Record

P = ParamSpec("P")
R = TypeVar("R")

Where = Literal["worker", "ray"]
CONCURRENCY = 1  # runs of one workflow and family at once
RETRIES = 6  # with the pauses below, two minutes: a database that restarts is back by then
PAUSE_SECONDS = 2.0

_workflows: dict[str, Workflow[..., Any]] = {}


def target_of(function: Callable[..., Any]) -> str:
    """Return `module:name` of `function`; raises WorkflowError when another process could not import it."""
    module, name = function.__module__, function.__qualname__
    if module == "__main__" or "<" in name:
        raise WorkflowError(
            f"{module}.{name} cannot be imported by another process. Put it at the top level of a module that is on "
            "every node's path (a script that is run is not).",
            function=name,
        )
    return f"{module}:{name}"


class Workflow(Generic[P, R]):
    """A function whose runs survive the death of every process. Its body only calls steps and decides.

    Called outside a worker it is the plain function; called in the body of another workflow it is a run of its own.
    """

    def __init__(
        self,
        function: Callable[P, R],
        name: str,
        concurrency: int,
        timeout_seconds: float | None,
    ) -> None:
        self.function = function
        self.name = name
        self.concurrency = concurrency
        self.timeout_seconds = timeout_seconds
        update_wrapper(self, function)

    @property
    def about_family(self) -> bool:
        """Whether its first argument is a family's name; its runs then wait in a queue of that family."""
        return next(iter(signature(self.function).parameters), "") == "family"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it here and now, or as a child of the running workflow."""
        found = context.running()
        if found is None:
            return self.function(*args, **kwargs)
        result: R = found[0].call_workflow(self, args, kwargs)
        return result


class Step(Generic[P, R]):
    """A function that a run does at most once to its end: its result is kept, and never computed again.

    A step may begin more than once, so it must be harmless to repeat.
    """

    def __init__(self, function: Callable[P, R], name: str, **options: Any) -> None:
        self.function = function
        self.name = name
        self.where: Where = options["where"]
        self.num_cpus: float | str = options["num_cpus"]
        self.memory: int | None = options["memory"]
        self.resources: dict[str, float] | None = options["resources"]
        self.max_retries: int = options["max_retries"]
        self.retry_on: tuple[type[Exception], ...] = options["retry_on"]
        self.retry_seconds: float = options["retry_seconds"]
        self.timeout_seconds: float | None = options["timeout_seconds"]
        self.catch_exceptions: bool = options["catch_exceptions"]
        self.spawns: bool = options["spawns"]
        self.measured: Callable[..., None] | None = options["measured"]
        update_wrapper(self, function)

    @property
    def target(self) -> str:
        """Where another process imports it from."""
        return target_of(self.function)

    @cached_property
    def record(self) -> type[Record] | None:
        """The record that the function gives, when its annotation says so."""
        kind = get_type_hints(self.function).get("return")
        return kind if isinstance(kind, type) and issubclass(kind, Record) else None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Do the step of the running workflow, or call the plain function outside one."""
        found = context.running()
        if found is None:
            return self.function(*args, **kwargs)
        result: R = found[0].run_step(self, args, kwargs)
        return result


def workflow(
    *,
    name: str | None = None,
    concurrency: int = CONCURRENCY,
    timeout_seconds: float | None = None,
) -> Callable[[Callable[P, R]], Workflow[P, R]]:
    """Make a function a workflow called `name` (the function's own name by default).

    `concurrency` is how many of its runs go on at once for one family, and `timeout_seconds` a run's deadline,
    counted from its start; at the deadline it is cancelled.
    """

    def decorate(function: Callable[P, R]) -> Workflow[P, R]:
        made = Workflow(function, name or function.__name__, concurrency, timeout_seconds)
        known = _workflows.get(made.name)
        if known is not None and not _same(known.function, function):
            raise WorkflowError(
                f"Two workflows are called {made.name!r}: {known.function.__module__} and {function.__module__}.",
                workflow=made.name,
            )
        _workflows[made.name] = made
        return made

    return decorate


def _same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    # A module that is run by `python -m` is imported twice, once as `__main__`.
    modules = {one.__module__, other.__module__}
    return one.__qualname__ == other.__qualname__ and (len(modules) == 1 or "__main__" in modules)


def step(
    *,
    where: Where = "worker",
    name: str | None = None,
    num_cpus: float | str = 1,
    memory: int | None = None,
    resources: dict[str, float] | None = None,
    max_retries: int = RETRIES,
    retry_on: tuple[type[Exception], ...] = (Unavailable,),
    retry_seconds: float = PAUSE_SECONDS,
    timeout_seconds: float | None = None,
    catch_exceptions: bool = False,
    spawns: bool = False,
    measured: Callable[..., None] | None = None,
) -> Callable[[Callable[P, R]], Step[P, R]]:
    """Make a function a step, done in the worker's process or as a Ray task with these resources.

    `num_cpus` is a number or the name of the setting that holds it, `memory` is in bytes.
    `max_retries` is how often a step is begun again after its process or node died, or after an error of a class in
    `retry_on`, with pauses from `retry_seconds` on that double. `timeout_seconds` ends a Ray task.
    `spawns` says that the step starts Ray tasks, actors or placement groups itself: it then has a process of
    its own, and these end with it. With `catch_exceptions` the step gives `[result, None]`, or `[None, message]`
    instead of an error. `measured` is called in the worker with the result and the arguments of an attempt that
    succeeded, to set metrics: those of a Ray task would go with its process.
    """
    if where == "worker" and timeout_seconds is not None:
        raise WorkflowError(
            'A step in the worker is a thread, which nothing can end: use where="ray" for a time-out.'
        )
    options = {
        "where": where,
        "num_cpus": num_cpus,
        "memory": memory,
        "resources": resources,
        "max_retries": max_retries,
        "retry_on": retry_on,
        "retry_seconds": retry_seconds,
        "timeout_seconds": timeout_seconds,
        "catch_exceptions": catch_exceptions,
        "spawns": spawns,
        "measured": measured,
    }
    return lambda function: Step(function, name or function.__name__, **options)


def registered() -> dict[str, Workflow[..., Any]]:
    """Return every workflow that this process has imported, by name."""
    return dict(_workflows)
