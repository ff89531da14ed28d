"""The door to Ray: the connection, named actors, tasks that can be cancelled; no Serve and no workflow is here."""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from raysys.errors import RaysysError, Unavailable, WorkflowError
from raysys.records import Record
from raysys.settings import Settings

NAMESPACE = "raysys"
ALONE = "alone:"
ACTOR_THREADS = 16
BATCH_NICENESS = 15  # what Ray gives every worker by default
LEAST_SHARE = 0.001  # of a resource that an actor takes only to be where it is


def connect(settings: Settings) -> None:
    """Join the cluster that settings name, or stay joined; raises Unavailable when none answers."""
    import ray

    if ray.is_initialized():
        return
    address = settings.ray_address or f"127.0.0.1:{settings.ray_port}"
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, TimeoutError) as error:
        raise Unavailable(
            f"No Ray cluster answers at {address}: {error}. Start one with `raysys up`.",
            address=address,
        ) from error


def disconnect() -> None:
    """Leave the cluster."""
    import ray

    ray.shutdown()


def load(target: str) -> Any:
    """Return what `module:name` names; raises WorkflowError when it cannot be imported."""
    module, _, name = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise WorkflowError(
            f"{target} cannot be imported: {error}. Is its module on every node?", target=target
        ) from error
    return found


class Host:
    """What every actor of raysys is: an object of a class that is imported inside the actor's process.

    Whoever makes the actor need not be able to import the class.
    """

    def __init__(self, target: str, args: tuple[Any, ...]) -> None:
        self._tenant = load(target)(*args)

    def call(self, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call a method of the object."""
        return getattr(self._tenant, method)(*args, **kwargs)


class Handle:
    """A named actor, seen from another process."""

    def __init__(self, name: str, actor: Any) -> None:
        self.name = name
        self.actor = actor

    def call(self, method: str, *args: Any, timeout_seconds: float = 30.0, **kwargs: Any) -> Any:
        """Call `method` and wait; raises Unavailable when the actor is away or too slow."""
        import ray

        try:
            return ray.get(self.actor.call.remote(method, args, kwargs), timeout=timeout_seconds)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, RaysysError) else error from None
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
            raise Unavailable(
                f"Actor {self.name} did not answer {method}: {type(error).__name__}. "
                "Ray starts it again by itself; see `raysys status`.",
                actor=self.name,
            ) from error


def ensure_actor(
    name: str,
    target: str,
    *args: Any,
    num_cpus: float = 0,
    resource: str = "",
    max_concurrency: int = ACTOR_THREADS,
    env: Mapping[str, str] | None = None,
) -> Handle:
    """Return the detached actor called `name`; make it from `target` (`module:Class`) when it is not there.

    Ray starts it again whenever its process ends. Of many callers at once one makes it. It runs only where there is
    some of the Ray resource `resource`, if one is named.
    """
    import ray

    options: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "num_cpus": num_cpus,
        "max_concurrency": max_concurrency,
    }
    if resource:
        options["resources"] = {resource: LEAST_SHARE}
    if env:
        options["runtime_env"] = {"env_vars": dict(env)}
    return Handle(name, ray.remote(Host).options(**options).remote(target, args))


def find_actor(name: str) -> Handle | None:
    """Return the actor called `name`, or None."""
    import ray

    try:
        return Handle(name, ray.get_actor(name, namespace=NAMESPACE))
    except ValueError:
        return None


def kill_actor(name: str) -> bool:
    """End the actor called `name` for good; return whether there was one."""
    import ray

    handle = find_actor(name)
    if handle is None:
        return False
    ray.kill(handle.actor, no_restart=True)
    return True


class Place(Record, frozen=True):
    """Where something runs: the node's address, the process id, and Ray's id of the task."""

    node: str
    pid: int
    task_id: str


def place() -> Place:
    """Return where the calling Ray task runs."""
    import ray

    context = ray.get_runtime_context()
    return Place(
        node=ray.util.get_node_ip_address(),
        pid=os.getpid(),
        task_id=context.get_task_id() or "",
    )


def give_way() -> None:
    """Let this thread, and those that it starts, run only where replicas leave CPU."""
    thread = threading.get_native_id()
    if os.getpriority(os.PRIO_PROCESS, thread) < BATCH_NICENESS:  # only root may go back
        os.setpriority(os.PRIO_PROCESS, thread, BATCH_NICENESS)


def output_files() -> list[Path]:
    """Return the files that this process's standard output and error go to; none outside a worker of Ray."""
    from ray._private.worker import global_worker

    paths = (global_worker.get_out_file_path(), global_worker.get_err_file_path())
    return [Path(path) for path in paths if path]


class Task:
    """A running Ray task, or the one call of an actor that lives for it."""

    def __init__(self, name: str, ref: Any, actor: Any = None) -> None:
        self.name = name
        self._ref = ref
        self._actor = actor

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`; return whether the task has ended."""
        import ray

        ended, _ = ray.wait([self._ref], timeout=seconds)
        return bool(ended)

    def result(self) -> Any:
        """Return what the ended task gave; raises WorkflowError, with the field `lost`, when Ray lost it."""
        import ray

        try:
            return ray.get(self._ref)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, RaysysError) else error from None
        except ray.exceptions.RayError as error:
            raise WorkflowError(
                f"The Ray task {self.name} was lost: {_first_line(error)} "
                "Resume the run to do this step again.",
                task=self.name,
                error_type=type(error).__name__,
                lost=True,
            ) from error
        finally:
            self._end_actor()

    def cancel(self) -> None:
        """End the task's process at once, and all that the task started."""
        import ray

        if self._actor is None:
            ray.cancel(self._ref, force=True, recursive=True)
        self._end_actor()

    def _end_actor(self) -> None:
        import ray

        if self._actor is not None:
            ray.kill(self._actor, no_restart=True)
            self._actor = None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _call(target: str, args: tuple[Any, ...]) -> Any:
    return load(target)(*args)


@cache
def _remote_call() -> Any:
    import ray

    return ray.remote(_call)


def submit(target: str, *args: Any, name: str, **options: Any) -> Task:
    """Start `target` (`module:function`) as a Ray task.

    `options` are Ray's (`num_cpus`, `memory` in bytes, `resources`, `max_retries` for a task whose process or node
    died). An exception of the function is never a reason to run it again.
    """
    chosen = {key: value for key, value in options.items() if value is not None}
    remote = _remote_call().options(name=name, retry_exceptions=False, **chosen)
    return Task(name, remote.remote(target, args))


class _Once:
    def call(self, target: str, args: tuple[Any, ...]) -> Any:
        return _call(target, args)


def submit_alone(target: str, *args: Any, name: str, **options: Any) -> Task:
    """Start `target` as `submit` does, but in a process of its own, with which all ends that it starts itself.

    A placement group that a task makes outlives the task, and holds its CPUs until the job ends. Only one that a
    detached actor makes ends with its maker, so this is one; an older one of the same name is ended. Nothing is tried
    again here: `max_retries` is the caller's to do.
    """
    import ray

    end_alone(name)
    chosen = {k: v for k, v in options.items() if v is not None and k != "max_retries"}
    actor = (
        ray.remote(_Once)
        .options(
            name=f"{ALONE}{name}:{secrets.token_hex(4)}",
            namespace=NAMESPACE,
            lifetime="detached",
            max_restarts=0,
            **chosen,
        )
        .remote()
    )
    return Task(name, actor.call.options(name=name).remote(target, args), actor)


def end_alone(name: str = "") -> None:
    """End what `submit_alone` started under `name`, or under any name, and nobody waits for any more."""
    import ray

    if not ray.is_initialized():
        return
    for each in ray.util.list_named_actors(all_namespaces=True):
        if each["namespace"] == NAMESPACE and each["name"].startswith(f"{ALONE}{name}"):
            kill_actor(each["name"])
