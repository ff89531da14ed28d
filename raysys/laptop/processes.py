"""The processes that belong to one home: spawned with a mark in their environment, found and ended by it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil

from raysys.errors import Conflict, Unavailable
from raysys.serving import standby
from raysys.settings import Settings

MARK = "RAYSYS_STACK"


def mark_of(home: Path) -> str:
    """Return the value of the mark that every process of `home` carries."""
    return hashlib.sha256(str(home).encode()).hexdigest()[:16]


def spawn(
    command: list[str], *, settings: Settings, environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, marked as one of the home, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            env={**os.environ, **environment, MARK: mark_of(settings.home)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def find(settings: Settings) -> list[psutil.Process]:
    """Return the living processes of the home, whoever started them."""
    mark, folder = mark_of(settings.home), f"{settings.session_folder}/"
    return [
        p
        for p in psutil.process_iter(["name"])
        if p.pid != os.getpid() and _belongs(p, mark, folder)
    ]


def _belongs(process: psutil.Process, mark: str, folder: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if process.environ().get(MARK) == mark:
            return True
        # Ray's workers write their title over their environment; their open log files tell whose they are.
        return any(file.path.startswith(folder) for file in process.open_files())
    except (psutil.Error, OSError):  # gone meanwhile, or another user's: not ours either way
        return False


def end(processes: Iterable[psutil.Process], *, grace_seconds: float = 4.0) -> None:
    """Ask the processes to end, then kill what is left after `grace_seconds`."""
    processes = list(processes)
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, left = psutil.wait_procs(processes, timeout=grace_seconds)
    for process in left:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(left, timeout=5)


def drain(settings: Settings, *, seconds: float = 2.0) -> None:
    """Let every HAProxy of the home answer what it has taken and take no more, for so long."""
    there = find(settings)
    for process in there:
        if _runs(process, standby.__name__):  # or it would stand in for what is stopped
            _signal(process, signal.SIGTERM)
    proxies = [p for p in there if p.info["name"] == "haproxy"]
    for process in proxies:
        _signal(process, signal.SIGUSR1)
    psutil.wait_procs(proxies, timeout=seconds)


def _runs(process: psutil.Process, module: str) -> bool:
    try:
        return module in process.cmdline()
    except psutil.Error:
        return False


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        return


def end_all(settings: Settings, *, grace_seconds: float = 4.0) -> int:
    """End every process of the home, also those that others start meanwhile; return how many there were."""
    count = 0
    while processes := find(settings):
        count += len(processes)
        end(processes, grace_seconds=grace_seconds)
    return count


def wait_until(
    check: Callable[[], bool],
    what: str,
    *,
    timeout_seconds: float,
    process: subprocess.Popen[bytes] | None = None,
    log: Path | None = None,
    interval_seconds: float = 0.2,
) -> None:
    """Wait until `check` holds; raise Unavailable with the end of `log` on time-out or when `process` has failed."""
    deadline = time.monotonic() + timeout_seconds
    while not check():
        failed = process is not None and process.poll() not in (None, 0)
        if failed or time.monotonic() > deadline:
            why = (
                f"ended with code {process.returncode}"
                if failed and process
                else f"was not ready after {timeout_seconds:.0f} s"
            )
            raise Unavailable(f"{what} {why}.{_tail(log)}", what=what)
        time.sleep(interval_seconds)


def _tail(log: Path | None, lines: int = 12) -> str:
    if log is None or not log.exists():
        return ""
    text = "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return f" The end of {log}:\n{text}"


def listening() -> dict[int, int | None]:
    """Return the process that listens on each TCP port of this machine; None for another user's."""
    return {
        c.laddr.port: c.pid  # type: ignore[union-attr]  # a listening socket has an address
        for c in psutil.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN
    }


def owns(settings: Settings, port: int) -> bool:
    """Return whether a process of the home listens on `port`."""
    pid = listening().get(port)
    return pid is not None and pid in {p.pid for p in find(settings)}


def refuse_taken(ports: Mapping[str, int], settings: Settings) -> None:
    """Raise Conflict when a port is taken by a process that is not one of the home; `ports` is by setting name."""
    by_port = listening()
    own = {p.pid for p in find(settings)}
    taken = [
        f"RAYSYS_{name.upper()}={port} is taken by {_describe(by_port[port])}"
        for name, port in ports.items()
        if port in by_port and by_port[port] not in own
    ]
    if taken:
        raise Conflict(
            f"Some ports are not free: {'; '.join(taken)}. End those processes, or set other ports.",
            taken=taken,
        )


def _describe(pid: int | None) -> str:
    try:
        return (
            f"process {pid} ({psutil.Process(pid).name()})" if pid else "a process of another user"
        )
    except psutil.Error:
        return f"process {pid}"
