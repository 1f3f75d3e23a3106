"""Ctrl-C, SIGTERM and a closed terminal at any moment of a command's start."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.cli.interrupts import importing, stops
from tests.cli.process import BOUND, COMMAND, all_gone, children, environment

CONFIG = "auth: {keys: [{name: ci, key: abcdefghijklmnop}]}\nmodels: {m: {upstream: {kind: demo}}}\n"
SLOW = """
import importlib.abc, os, sys

class Telling(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), {number})
        return None

sys.meta_path.insert(0, Telling())
sys.argv = ["modal-gateway", *{arguments!r}]
from gateway.cli import main
main()
"""


def interrupted(
    folder: Path, name: str, number: int, *arguments: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """The command, sent the signal when it begins to import the module ``name``."""
    script = SLOW.format(name=name, number=int(number), arguments=arguments)
    return subprocess.run(
        [COMMAND[0], "-c", script],
        cwd=folder,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=BOUND,
    )


@pytest.mark.parametrize("name", ["typer", "sqlalchemy"])
def test_ctrl_c_during_an_import_ends_a_command_quietly(tmp_path: Path, name: str) -> None:
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    done = interrupted(tmp_path, name, signal.SIGINT, "keys", "list", "--config", "gateway.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("name", "number", "code"),
    [
        ("gateway.app", signal.SIGINT, 130),
        ("gateway.console.sessions", signal.SIGTERM, 143),
        ("gateway.store.schema", signal.SIGHUP, 129),
    ],
)
def test_a_demo_that_is_stopped_while_it_starts_leaves_nothing(
    tmp_path: Path, name: str, number: int, code: int
) -> None:
    (tmp_path / "temporary").mkdir()
    done = interrupted(tmp_path, name, number, "demo", "--port", "0", TMPDIR=str(tmp_path / "temporary"))
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    assert os.listdir(tmp_path / "temporary") == []


def test_a_demo_whose_terminal_is_closed_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    process = subprocess.Popen(
        [*COMMAND, "demo", "--port", "0"],
        env=environment({"TMPDIR": str(tmp_path / "temporary")}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "a demo at" in process.stdout.readline()
        with all_gone(children(process.pid)):
            process.send_signal(signal.SIGHUP)
            _, err = process.communicate(timeout=BOUND)
        assert process.returncode == 0
        assert all('"event":"request"' in line for line in err.splitlines())  # the demo's own question
    finally:
        process.kill()
        process.communicate()
    assert os.listdir(tmp_path / "temporary") == []


def sent(number: int) -> None:
    """The signal, and its handler was called."""
    signal.raise_signal(number)
    time.sleep(0)


def test_what_is_to_be_stopped_is_stopped_also_when_the_signal_was_first() -> None:
    called: list[str] = []
    with stops() as asked:
        assert asked.code == 0
        sent(signal.SIGTERM)
        assert asked.code == 143 and not called
        asked.by(lambda: called.append("late"))
        sent(signal.SIGINT)
        assert called == ["late", "late"] and asked.code == 143


def test_handlers_are_put_back_and_what_is_ignored_stays_so() -> None:
    before = signal.getsignal(signal.SIGINT)
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stops() as asked, importing():
            sent(signal.SIGHUP)
            assert asked.code == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_may_import() -> None:
    failed: list[BaseException] = []

    def work(block: Callable[[], None]) -> None:
        try:
            block()
        except BaseException as exc:  # noqa: BLE001 what a thread raises is seen here alone
            failed.append(exc)

    def block() -> None:
        with importing():
            pass

    thread = threading.Thread(target=work, args=(block,))
    thread.start()
    thread.join(BOUND)
    assert failed == []
