"""`server.leave_delay`: a gateway that was told to end says so before it closes its door."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.process import BOUND, Running, running

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def leaving(folder: Path, delay: float, *arguments: str) -> Any:
    config = {
        "server": {"leave_delay": delay},
        "auth": {"mode": "none"},
        "store": {"url": None},
        "models": {"m": {"upstream": {"kind": "demo"}}},
    }
    (folder / "gateway.yaml").write_text(json.dumps(config))
    command = ("serve", "--config", "gateway.yaml", "--port", "0", *arguments)
    return running(*command, cwd=folder, until="see also")


def told(gateway: Running) -> None:
    """Send SIGTERM, and wait until it is known."""
    gateway.process.send_signal(signal.SIGTERM)
    until = time.monotonic() + BOUND
    with gateway.client() as client:
        while client.get("/health/ready").status_code != 503:
            assert time.monotonic() < until


def test_it_says_that_it_leaves_and_still_takes_requests(tmp_path: Path) -> None:
    with leaving(tmp_path, BOUND) as gateway:
        with gateway.client() as client:
            assert client.get("/health/ready").status_code == 200
        told(gateway)
        with gateway.client() as client:  # over a new connection
            assert client.get("/health/live").status_code == 200
            assert client.get("/health/ready").json()["error"]["code"] == "shutting_down"
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_another_signal_ends_it_at_once(tmp_path: Path, number: int) -> None:
    with leaving(tmp_path, 10 * BOUND) as gateway:
        told(gateway)
        assert gateway.stop(number)[0] == 0


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")], ids=["one process", "workers"])
def test_it_ends_when_the_time_is_over(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    delay = 0.5
    with leaving(tmp_path, delay, *arguments) as gateway:
        began = time.monotonic()
        assert gateway.stop()[0] == 0
        assert time.monotonic() - began >= delay
