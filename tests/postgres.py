"""A throw-away PostgreSQL server for tests, of the system's package; nothing of raysys is here."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType

import psycopg2

USER = "raysys"
START_SECONDS = 60.0


def binary(name: str) -> str | None:
    """Return the path of one of PostgreSQL's programs, the newest version first."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: p.parent.name, reverse=True
    )
    return shutil.which(
        name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])
    )


def available() -> str:
    """Return why no server can be started here, or an empty text."""
    if binary("initdb") is None or binary("postgres") is None:
        return "PostgreSQL is not installed"
    if os.geteuid() == 0 and not _server_account():
        return "PostgreSQL refuses to run as root, and there is no account `postgres`"
    return ""


def _server_account() -> bool:
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return False
    return True


def free_port() -> int:
    """Return a TCP port of the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A server on a free port in a folder of its own, both gone at the end.

    Data is not synced to disk: a crash of the machine may lose it, and tests are faster.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="raysys-pg-"))
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Cluster:
        try:
            self._initialise()
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of `database`."""
        return f"postgresql+psycopg2://{USER}@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self._execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def go_away(self) -> None:
        """Stop the server; what it holds stays."""
        assert self._server is not None
        self._server.send_signal(signal.SIGINT)
        self._server.wait(20)

    def come_back(self) -> None:
        """Start the server again and wait until it answers."""
        self._start()

    def _initialise(self) -> None:
        account = self._account()
        if account:
            os.chown(self._folder, account["user"], account["group"])
        command = [
            str(binary("initdb")),
            "-D",
            str(self._folder / "data"),
            "-U",
            USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
        ]
        command += ["--locale=C", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder, **account)

    def _start(self) -> None:
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._folder,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "shared_buffers": "32MB",
            "max_connections": 60,
        }
        command = [str(binary("postgres")), "-D", str(self._folder / "data")]
        command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "server.log").open("wb") as out:
            self._server = subprocess.Popen(
                command, stdout=out, stderr=out, cwd=self._folder, **self._account()
            )
        self._await_ready()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._execute("SELECT 1")
                return
            except psycopg2.OperationalError:
                if (
                    self._server is None
                    or self._server.poll() is not None
                    or time.monotonic() > deadline
                ):
                    raise RuntimeError((self._folder / "server.log").read_text()) from None
                time.sleep(0.05)

    def _execute(self, statement: str) -> None:
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, dbname="postgres"
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    def _account(self) -> dict[str, int]:
        """Return the account to run as, as arguments of `subprocess`: PostgreSQL refuses root."""
        if os.geteuid() != 0:
            return {}
        account = pwd.getpwnam("postgres")
        return {"user": account.pw_uid, "group": account.pw_gid}

    def _stop(self) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGINT)  # a fast shutdown: open sessions are ended
            try:
                self._server.wait(20)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait(20)
        shutil.rmtree(self._folder, ignore_errors=True)
