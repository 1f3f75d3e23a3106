"""An inference server as a child process, and the probe that asks a deployed model, over real sockets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from modal_backend.container import Container
from modal_backend.deployment import DeploymentError, read
from modal_backend.engine import EngineDead
from modal_backend.engines.demo import Demo
from modal_backend.probe import ProbeFailed, Target, ask, proxy_token, run, summary
from modal_backend.server_process import ServerFailed, ServerProcess
from tests.clients.process import free_port

BOUND = 30  # seconds


@pytest.fixture
def served() -> object:
    """The contract server as Modal would run it behind a Server."""
    port = free_port()
    command = [sys.executable, "-m", "modal_backend.serve_deployment", "demo", "--port", str(port)]
    server = ServerProcess(command, port, "prompt")
    try:
        server.ready(BOUND)
        server.warm_up("demo")
        yield Target(f"http://127.0.0.1:{port}", "prompt", "demo")
    finally:
        server.stop()


def test_a_server_is_ready_warm_and_answers_a_probe(served: Target) -> None:
    answer = ask(served, "repeat: hello world", 16)
    assert answer.text == "hello world"
    assert 0 < answer.first <= answer.total
    measured = run(served, ["repeat: a", "repeat: b"], 4)
    assert [one["text"] for one in measured] == ["a", "b"]
    assert summary(measured, 2.0).startswith("2 answers, ")


def test_a_probe_says_what_was_refused(served: Target) -> None:
    with pytest.raises(ProbeFailed, match=r"status 400: .*max_tokens"):
        ask(served, "x", 0)
    with pytest.raises(ProbeFailed, match="status 404"):
        ask(Target(served.url, "openai", "demo"), "x", 1)


def test_a_probe_says_that_nothing_is_there() -> None:
    with pytest.raises(ProbeFailed, match="cannot be reached"):
        ask(Target(f"http://127.0.0.1:{free_port()}", "prompt", "m"), "x", 1)


def test_a_server_that_ends_early_is_an_error_at_once() -> None:
    server = ServerProcess([sys.executable, "-c", "raise SystemExit(7)"], free_port(), "prompt")
    with pytest.raises(ServerFailed, match="ended with status 7 before it was ready"):
        server.ready(BOUND)
    server.stop()


def test_a_server_that_never_listens_is_given_up() -> None:
    server = ServerProcess(
        [sys.executable, "-c", "import threading; threading.Event().wait()"], free_port(), "openai"
    )
    with pytest.raises(ServerFailed, match="was not ready after 0 seconds"):
        server.ready(0)
    server.stop()


def test_a_token_is_a_key_and_a_secret() -> None:
    assert proxy_token({"MODAL_KEY": "wk-1", "MODAL_SECRET": "ws-1"}) == {
        "Modal-Key": "wk-1",
        "Modal-Secret": "ws-1",
    }
    assert proxy_token({"MODAL_KEY": "wk-1"}) == {}


class Dead(Demo):
    """An engine that has died."""

    def fault(self) -> str | None:
        return "it fell over"


async def test_a_dead_engine_is_never_warm_and_ends_its_container() -> None:
    import threading

    container = Container(read("x", {"model": "m", "engine": "demo"}))
    container.engine = Dead()
    with pytest.raises(EngineDead, match="it fell over"):
        await container.warm_up()
    told: list[str] = []
    noticed = threading.Event()
    container.watch(lambda fault: (told.append(fault), noticed.set())[0])
    assert noticed.wait(BOUND)
    assert told == ["it fell over"]
    await container.close()


def test_a_package_that_the_image_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "modal_backend.engines.transformers_engine", raising=False)
    container = Container(read("x", {"model": str(tmp_path), "engine": "transformers"}))
    with pytest.raises(
        DeploymentError, match=r"there is no module .* here: add its package to image\.pip of x"
    ):
        container.load()


@pytest.mark.parametrize(
    ("image", "engine", "advice"),
    [
        ({"pip": ["torch==2.13.0", "transformers"]}, "embed", "pip install torch==2.13.0 transformers"),
        ({"pip": ["vllm==0.19.0"]}, "transformers", "pip install torch transformers"),
        ({"pip": ["transformers>=5"]}, "transformers", "pip install 'transformers>=5' torch"),
        ({}, "vllm", "pip install vllm torch"),
    ],
)
def test_on_this_machine_the_advice_is_what_to_install_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image: dict[str, Any], engine: str, advice: str
) -> None:
    for name in ("torch", "transformers", "vllm"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in [name for name in sys.modules if name.startswith("modal_backend.engines.")]:
        monkeypatch.delitem(sys.modules, name)
    deployment = read("x", {"model": str(tmp_path), "engine": engine, "image": image})
    with pytest.raises(DeploymentError) as missing:
        Container(deployment, local=True).load()
    assert f"here: {advice}, or choose another engine with --engine" in str(missing.value)
