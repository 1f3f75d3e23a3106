"""``python -m modal_backend`` as a process: one line when it is ready, and an end with its parent."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from modal_backend.__main__ import listen

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "modal_backend")


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The process and its line; it has its own end of a pipe as standard input."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def refused(*arguments: str) -> tuple[int, str]:
    ended = subprocess.run([*COMMAND, *arguments], cwd=ROOT, text=True, capture_output=True, check=False)
    assert ended.stdout == ""
    return ended.returncode, ended.stderr


def test_it_serves_where_it_says_and_ends_with_its_parent() -> None:
    with running("--with-parent", "--delay", "0") as (process, ready):
        assert ready["event"] == "ready"
        assert ready["engine"] == "demo"
        assert ready["pid"] == process.pid
        assert ready["url"] == f"http://127.0.0.1:{ready['port']}"
        answered = httpx.post(ready["url"], json={"prompt": "repeat: hello"}, trust_env=False)
        assert answered.json()["prompt"] == "hello"
        out, err = process.communicate()  # closes its standard input, and returns when it has ended
        assert (process.returncode, out, err) == (0, "", "")


def test_an_open_stream_does_not_keep_it_from_ending() -> None:
    endless = {"prompt": "count to 10000", "stream": True}
    with (
        running("--with-parent", "--delay", "0.05") as (process, ready),
        httpx.stream("POST", ready["url"], json=endless, trust_env=False) as held,
    ):
        arriving = held.iter_bytes()
        assert next(arriving)
        _, err = process.communicate()
        assert (process.returncode, err) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a process can handle")
def test_it_ends_when_told_to() -> None:
    with running() as (process, _):
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
        assert process.returncode == -signal.SIGTERM
        assert "Traceback" not in err


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        code, err = refused("--port", str(port))
    assert code == 1
    assert err.startswith(f"cannot listen on 127.0.0.1 port {port}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--engine", "magic"], "choose from"),
        (["--delay", "-1"], "must be from 0 to 60"),
        (["--delay", "soon"], "argument --delay"),
        (["--port", "web"], "argument --port"),
    ],
)
def test_a_wrong_option_is_said(arguments: list[str], part: str) -> None:
    code, err = refused(*arguments)
    assert code == 2
    assert part in err


def test_the_socket_says_that_it_is_tcp() -> None:
    # asyncio sets TCP_NODELAY on the connections of no other socket.
    with listen("127.0.0.1", 0) as made:
        assert made.proto == socket.IPPROTO_TCP


def test_contract_and_demo_need_the_standard_library_only() -> None:
    # -S leaves site-packages out, so that any other import fails; -I the environment of this test.
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
        "from modal_backend.contract import contract_app; "
        "from modal_backend.engines import make_engine; "
        "import modal_backend.bos; contract_app(make_engine('demo', {}))"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_no_module_takes_the_name_of_one_of_python_s() -> None:
    # `modal deploy modal_backend/app.py` puts the folder itself in front of the import path.
    ours = {path.stem for path in (ROOT / "modal_backend").iterdir() if path.suffix in (".py", "")}
    assert not ours & set(sys.stdlib_module_names)
