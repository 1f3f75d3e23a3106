"""`serve` takes over what its file says: by itself, on SIGHUP, and in each of several processes."""

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest

from tests.cli.process import BOUND, Running, all_gone, children
from tests.cli.test_serve import Endpoint, endpoint, serving  # noqa: F401 # a fixture


@dataclass
class File:
    """A configuration of models at one endpoint."""

    path: Path
    url: str

    def write(self, *names: str, **top: Any) -> None:
        """In place."""
        entry = {"upstream": {"url": self.url}, "template": "plain"}
        server = {"log": "off", **top.pop("server", {})}
        data = {"server": server, "auth": {"mode": "none"}, "models": dict.fromkeys(names, entry), **top}
        self.path.write_text(json.dumps(data))

    def replace(self, *names: str) -> None:
        """By another file, as most editors do."""
        File(self.path.with_suffix(".new"), self.url).write(*names)
        self.path.with_suffix(".new").replace(self.path)


@pytest.fixture
def file(tmp_path: Path, endpoint: Endpoint) -> File:  # noqa: F811
    made = File(tmp_path / "gateway.yaml", endpoint.url)
    made.write("one")
    return made


def until(holds: Callable[[], bool]) -> None:
    """Ask again and again until it does."""
    end = monotonic() + BOUND
    while not holds():
        assert monotonic() < end, "it never did"


def models(gateway: Running) -> list[str]:
    """As a connection of its own is told."""
    with gateway.client(connection="close") as client:
        return [model["id"] for model in client.get("/v1/models").json()["data"]]


def lines(gateway: Running, count: int) -> list[str]:
    """The next of its log, without the time."""
    assert gateway.process.stderr is not None
    return [re.sub(r"^[-\d]+ [:,\d]+ ", "", gateway.process.stderr.readline()) for _ in range(count)]


RELOADED = "WARNING the configuration was reloaded\n"


def test_the_file_is_taken_over_however_it_was_written(tmp_path: Path, file: File) -> None:
    with serving(tmp_path, "--config", file.path.name) as gateway:
        file.write("one", "two")
        until(lambda: models(gateway) == ["one", "two"])
        file.replace("three")
        until(lambda: models(gateway) == ["three"])
        code, _, err = gateway.stop()
    assert code == 0
    assert [line.partition(" the ")[2] for line in err.splitlines()] == ["configuration was reloaded"] * 2


def test_a_signal_has_it_read_at_once_and_a_wrong_one_is_one_line(tmp_path: Path, file: File) -> None:
    with serving(tmp_path, "--config", file.path.name) as gateway:
        file.write("one", "two", nonsense=1)
        gateway.process.send_signal(signal.SIGHUP)
        [line] = lines(gateway, 1)
        start = "ERROR the configuration was not reloaded, the old one stays: gateway.yaml: nonsense: "
        assert line.startswith(start)
        assert models(gateway) == ["one"]
        file.write("one", "two", server={"drain_timeout": 1})
        gateway.process.send_signal(signal.SIGHUP)
        named = "; these keys count only after a restart: server.drain_timeout\n"
        assert lines(gateway, 1) == [RELOADED.rstrip() + named]
        assert models(gateway) == ["one", "two"]


# --- several processes ---


def test_each_worker_takes_it_over_and_what_is_wrong_is_said_once(tmp_path: Path, file: File) -> None:
    with serving(tmp_path, "--config", file.path.name, "--workers", "2") as gateway:
        lines(gateway, 1)  # what several workers mean
        file.write("one", "two")
        gateway.process.send_signal(signal.SIGHUP)
        assert lines(gateway, 2) == [RELOADED] * 2
        file.write("three")  # and nobody says so
        assert lines(gateway, 2) == [RELOADED] * 2
        file.write("four", nonsense=1)
        [line] = lines(gateway, 1)
        assert line.startswith("warning: the configuration was not reloaded, the old one stays: ")
        assert models(gateway) == models(gateway) == ["three"]
        code, _, err = gateway.stop()
    assert (code, err) == (0, "")


def test_keys_stay_while_the_mode_that_ends_them_waits_for_a_restart(tmp_path: Path, file: File) -> None:
    file.write("one", auth={"keys": [{"name": "a", "key": "sk-a"}]}, store={"url": None})
    with serving(tmp_path, "--config", file.path.name) as gateway:
        file.write("one", "two", store={"url": None})
        gateway.process.send_signal(signal.SIGHUP)
        [line] = lines(gateway, 1)
        assert line.strip().endswith("these keys count only after a restart: auth.mode")
        with gateway.client(authorization="Bearer sk-a") as client:
            assert len(client.get("/v1/models").json()["data"]) == 2


def test_what_serve_would_refuse_is_not_taken_over_either(tmp_path: Path, file: File) -> None:
    file.write("one", auth={"keys": [{"name": "a", "key": "sk-a"}]}, store={"url": None})
    with serving(tmp_path, "--config", file.path.name) as gateway:
        file.write("one", auth={"keys": []}, store={"url": None})
        gateway.process.send_signal(signal.SIGHUP)
        [line] = lines(gateway, 1)
        assert "the old one stays: auth.mode is keys, but auth.keys has no key" in line
        with gateway.client(authorization="Bearer sk-a") as client:
            assert client.get("/v1/models").status_code == 200


@dataclass
class Caller:
    """Asks on a connection that it keeps, as fast as it can; ``answers`` by their status."""

    url: str
    ask: dict[str, Any]
    answers: dict[int | str, int] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with httpx.Client(timeout=BOUND, trust_env=False) as client:
            while not self.over.is_set():
                try:
                    outcome: int | str = client.post(self.url, json=self.ask).status_code
                except httpx.HTTPError as error:
                    outcome = repr(error)
                self.answers[outcome] = self.answers.get(outcome, 0) + 1


@contextmanager
def calling(gateway: Running) -> Iterator[list[Caller]]:
    ask = {"model": "one", "messages": [{"role": "user", "content": "hi"}]}
    callers = [
        Caller(f"{gateway.root}/v1/chat/completions", {**ask, "stream": kind}) for kind in (False, True)
    ]
    threads = [threading.Thread(target=each.run) for each in callers]
    for thread in threads:
        thread.start()
    try:
        yield callers
    finally:
        for each in callers:
            each.over.set()
        for thread in threads:
            thread.join()


def serving_processes(gateway: Running) -> set[int]:
    """The workers: whoever holds the socket that listens."""
    inode = _inode(int(gateway.root.rpartition(":")[2]))
    return {pid for pid in children(gateway.process.pid) if inode in _sockets(pid)}


def _inode(port: int) -> str:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
            return f"socket:[{fields[9]}]"
    raise AssertionError("nobody listens")


def _sockets(pid: int) -> set[str]:
    found = set()
    for each in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            found.add(os.readlink(each))
        except OSError:  # closed, or its process ended, meanwhile
            continue
    return found


@pytest.mark.slow
def test_workers_are_replaced_without_a_failed_request(tmp_path: Path, file: File) -> None:
    with serving(tmp_path, "--config", file.path.name, "--workers", "2") as gateway:
        before = serving_processes(gateway)
        with calling(gateway) as callers:
            with all_gone(sorted(before)):
                gateway.process.send_signal(signal.SIGUSR2)
            asked = [sum(each.answers.values()) for each in callers]
            until(lambda: all(sum(each.answers.values()) > n for each, n in zip(callers, asked, strict=True)))
        assert [set(each.answers) for each in callers] == [{200}, {200}]
        after = serving_processes(gateway)
        assert len(after) == len(before) and not after & before
        lines(gateway, 1)
        file.write("one", "two")
        gateway.process.send_signal(signal.SIGHUP)
        assert lines(gateway, 2) == [RELOADED] * 2
        assert gateway.stop()[0] == 0


@pytest.mark.slow
def test_workers_that_cannot_be_replaced_go_on(tmp_path: Path, file: File) -> None:
    with serving(tmp_path, "--config", file.path.name, "--workers", "2") as gateway:
        before = serving_processes(gateway)
        file.write("one", nonsense=1)
        gateway.process.send_signal(signal.SIGUSR2)
        assert gateway.process.stderr is not None
        while "a new worker did not start" not in (line := gateway.process.stderr.readline()):
            assert line
        assert serving_processes(gateway) == before
        assert models(gateway) == ["one"]
