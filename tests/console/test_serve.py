"""`serve` and the console: what a terminal is told, and several workers that know the same."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from gateway.cli.serving import Served, console_lines
from gateway.cli.sources import Source
from gateway.console.sessions import Tickets
from gateway.settings import settings_from
from tests.cli.process import BOUND, environment, running
from tests.console.door import OWN_PAGE, SESSION

OPEN = "auth: {mode: none}\nmodels: {m: {upstream: {kind: demo}}}\n"
KEYED = "auth: {keys: [{name: a, key: sk-a}]}\nmodels: {m: {upstream: {kind: demo}}}\n"
ADMIN = "admin: {key: canary}\n"
BESIDE = "see also"  # what follows the console


def on_terminal(folder: Path, *options: str) -> tuple[subprocess.Popen[bytes], str]:
    """The gateway, which has begun to serve, and what it told a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", "--config", "gateway.yaml", "--port", "0", *options],
        cwd=folder,
        env=environment({}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown, end = "", time.monotonic() + BOUND
    try:
        while BESIDE not in shown and select.select([ours], [], [], max(0.0, end - time.monotonic()))[0]:
            shown += os.read(ours, 65536).decode()
    except OSError:
        pass  # it has ended
    if BESIDE not in shown:
        process.kill()
        process.wait(BOUND)
        raise AssertionError(f"it ended, or says no more: {shown}")
    return process, shown


@pytest.mark.parametrize(
    "text",
    [KEYED, *(pytest.param(text, marks=pytest.mark.slow) for text in (OPEN, KEYED + ADMIN))],
    ids=["keys", "open", "admin key"],
)
def test_a_terminal_of_this_machine_is_told_an_address_that_logs_in_once(tmp_path: Path, text: str) -> None:
    (tmp_path / "gateway.yaml").write_text(text)
    process, shown = on_terminal(tmp_path)
    try:
        [(root, ticket)] = re.findall(r"console +(http://[\d.:]+)/#ticket=([\w-]+)", shown)
        with httpx.Client(base_url=root, timeout=BOUND, headers=OWN_PAGE) as browser:
            assert browser.post(SESSION, json={"ticket": ticket}).status_code == 200
            assert browser.get("/admin/upstreams").status_code == 200
            again = browser.post(SESSION, json={"ticket": ticket}).status_code
            assert again == (200 if text == OPEN else 401)  # where nothing is needed, nothing is refused
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(BOUND)


@pytest.mark.parametrize(
    ("text", "loopback", "says"),
    [
        (OPEN, True, ""),
        (KEYED + ADMIN, False, "log in with the admin key"),
        (KEYED + ADMIN, True, "log in with the admin key"),
        (KEYED, True, "nobody can log in yet: set admin.key"),
        (OPEN, False, "nobody can log in yet: set admin.key"),
    ],
)
def test_elsewhere_no_secret_is_told(text: str, loopback: bool, says: str) -> None:
    settings = settings_from(yaml.safe_load(text), {})
    served = Served(Source(data={}), "127.0.0.1", loopback=loopback, insecure=not loopback, workers=1)
    first, *rest = console_lines(settings, served, "http://127.0.0.1:8000", Tickets(time.time))
    assert first == "http://127.0.0.1:8000/" and says in "".join(rest)
    assert "canary" not in "".join(rest)


def test_without_the_console_nothing_is_said_of_it(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(OPEN + "admin: {console: false}\n")
    with running("serve", "--config", "gateway.yaml", "--port", "0", cwd=tmp_path, until=BESIDE) as gateway:
        assert "console" not in gateway.shown


@pytest.mark.slow
def test_workers_take_each_others_sessions_and_tell_of_all(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(OPEN)
    arguments = ("serve", "--config", "gateway.yaml", "--port", "0", "--workers", "2")
    with (
        running(*arguments, cwd=tmp_path, until=BESIDE) as gateway,
        gateway.client(connection="close", **OWN_PAGE) as browser,  # each request may meet another worker
    ):
        assert browser.post(SESSION, json={}).status_code == 200
        chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        for _ in range(12):
            session = browser.get(SESSION).json()
            assert session["expires"] and session["workers"] == 2
            assert browser.post("/v1/chat/completions", json=chat).status_code == 200
        told = [browser.get("/admin/overview").json() for _ in range(8)]
        assert {each["gateway"]["workers"] for each in told} == {2}
        assert {each["total"]["requests"] for each in told} == {12}
        end = time.monotonic() + BOUND
        while not all(browser.get("/admin/overview").json()["points"] for _ in range(8)):
            assert time.monotonic() < end, "a worker does not know the points"
