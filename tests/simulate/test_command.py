"""`modal-gateway simulate` as a person runs it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.cli.process import all_gone, children, run, running

ASK = {"prompt": "repeat: hello"}


def test_it_starts_an_app_of_its_own_tells_what_happens_and_ends_with_it(tmp_path: Path) -> None:
    arguments = ("simulate", "--json", "--port", "0", "--boot", "0.1")
    with running(*arguments, cwd=tmp_path, until='"ready"') as command:
        ready = json.loads(command.shown)
        with httpx.Client(base_url=ready["url"], timeout=30, trust_env=False) as http:
            assert http.post("/", json=ASK).json()["prompt"] == "hello"
            assert http.get("/_simulate").json()["boots"] == 1
        below = children(command.process.pid)
        assert below
        with all_gone(below):
            code, printed, complaints = command.stop()
        assert (code, complaints) == (0, "")
        events = [json.loads(line)["event"] for line in printed.splitlines()]
        assert events[:2] == ["request queued", "container booting"]
        assert events[-1] == "answered"


def test_it_ends_at_once_whoever_still_waits(tmp_path: Path) -> None:
    with running(
        "simulate", "--json", "--port", "0", "--boot", "600", cwd=tmp_path, until='"ready"'
    ) as command:
        address = urlsplit(json.loads(command.shown)["url"])
        with socket.create_connection((address.hostname, address.port)) as waiting:
            waiting.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}")
            assert command.process.stdout is not None
            assert "request queued" in command.process.stdout.readline()
            assert command.stop()[0] == 0


def test_what_it_prints_leads_to_the_gateway(tmp_path: Path) -> None:
    app = "http://127.0.0.1:9/v1"
    arguments = ("simulate", "--mode", "server", "--app", app, "--port", "0", "--require-auth", "wk-1:ws-2")
    with running(*arguments, cwd=tmp_path, until="Ctrl-C") as command:
        for part in ("Server", app, "serve --url http://127.0.0.1:", "/_simulate", "modal_key"):
            assert part in command.shown
        assert "ws-2" not in command.shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--boot", "soon"), "--boot"),
        (("--boot", "30-15"), "--boot"),
        (("--app", "localhost:8000"), "--app"),
        (("--require-auth", "token"), "--require-auth"),
        (("--function-timeout", "0"), "--function-timeout must be more than 0"),
        (("--function-timeout", "86401"), "--function-timeout"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run(
        "simulate", "--port", "0", *arguments, cwd=tmp_path, env={"COLUMNS": os.environ.get("COLUMNS", "80")}
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and said in done.stderr
