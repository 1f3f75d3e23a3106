"""Servers that some tests need: PostgreSQL and Redis, each on a free port and in a folder of its own.

Rule: nothing of a server that already runs here is touched. Where a program is missing the test is skipped.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from tests.clients.process import free_port

BOUND = 30.0  # seconds until a server must answer
DEBIAN = "/usr/lib/postgresql/*/bin"


def program(name: str) -> str:
    """Its path; skips the test if it is not installed."""
    debian = sorted(Path("/").glob(f"{DEBIAN[1:]}/{name}"))
    found = shutil.which(name) or (str(debian[-1]) if debian else None)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def answering(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until something takes connections there."""
    until = time.monotonic() + BOUND
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise AssertionError(f"no answer at port {port}\n{log.read_text(errors='replace')}")


@dataclass
class Server:
    """One server process, which can be stopped, and started again on the same port and data."""

    command: Sequence[str]
    port: int
    folder: Path
    user: str | None = None
    end: int = signal.SIGTERM
    ready: Sequence[str] = ()  # succeeds once it can be used
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        log = self.folder / "log"
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                user=self.user,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        answering(self.port, self.process, log)
        until = time.monotonic() + BOUND
        while self.ready and subprocess.run(self.ready, check=False).returncode != 0:
            assert time.monotonic() < until, log.read_text(errors="replace")
            time.sleep(0.01)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(self.end)
            self.process.wait(BOUND)
            self.process = None

    def signal(self, number: int) -> None:
        """SIGSTOP makes it take connections and say nothing; SIGCONT ends that."""
        assert self.process is not None
        self.process.send_signal(number)


@contextmanager
def folder_of(user: str | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gateway-tests-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres() -> Iterator[Server]:
    """A PostgreSQL server of one's own."""
    initdb, server = program("initdb"), program("postgres")
    user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
    with folder_of(user) as folder:
        data, port = str(folder / "data"), free_port()
        made = [initdb, "-D", data, "-U", "tests", "--auth=trust", "--no-sync", "-E", "UTF8", "--no-locale"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, user=user, cwd=folder)
        options = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}"]
        options += ["fsync=off", "full_page_writes=off", "shared_buffers=32MB", "max_connections=50"]
        command = [server, "-D", data, *(part for option in options for part in ("-c", option))]
        asked = [program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        running = Server(command, port, folder, user, signal.SIGINT, asked)
        running.start()
        try:
            yield running
        finally:
            running.stop()


def new_database(server: Server) -> str:
    """The URL of a new, empty database."""
    name = f"t{uuid4().hex}"
    where = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "tests"]
    subprocess.run([program("createdb"), *where, name], check=True)
    return f"postgresql://tests:canary-password@127.0.0.1:{server.port}/{name}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """The server that tests share; each takes a database of its own."""
    with postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Server) -> str:
    """The URL of a new, empty database."""
    return new_database(postgres_server)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.database)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database of each kind that the store may be."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'gateway.db'}"
    return str(request.getfixturevalue("postgres_url"))


@contextmanager
def redis(*options: str) -> Iterator[Server]:
    """A Redis server of one's own, which keeps nothing."""
    server = program("redis-server")
    with folder_of(None) as folder:
        port = free_port()
        command = [server, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
        running = Server([*command, "--dir", str(folder), *options], port, folder)
        running.start()
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """The server that tests share; `redis://127.0.0.1:{redis_server.port}`."""
    with redis() as server:
        yield server
