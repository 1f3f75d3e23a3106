"""``demo``: the gateway in front of a model container on this machine, which runs no model.

Rule: everything between client and container is the real thing; only the answers come from fixed rules, and
that is said wherever they are shown. The container is a process of its own that ends with this one, however
this one ends.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gateway
from gateway.cli.address import bind
from gateway.cli.show import CommandError, bold, dim, program
from gateway.http.server import Running, configure, stoppable

MODEL = "chatglm2-6b"
GREETING = "你好"
DRAIN = 2  # seconds that open requests get when the demo is stopped
PATIENCE = 5  # seconds that the container gets to end by itself


def demo(port: int) -> int:
    """Serve the demo until told to stop; the exit code."""
    other = port + 1 if port < 65535 else 8000
    sock = bind("127.0.0.1", port, f"make run PORT={other}, or {program()} demo --port {other}")
    address = f"http://127.0.0.1:{sock.getsockname()[1]}"
    with demo_container() as container:
        from gateway.app import build_app  # takes as long as the container to start, so meanwhile
        from gateway.settings import settings_from

        settings = settings_from(configuration(container_url(container)))
        app = stoppable(build_app(settings, loopback=True))
        company = _Company(container, address)
        company.running = Running(configure(app, DRAIN), sock, company.show)
        company.running.run()
        if company.trouble:
            raise CommandError(company.trouble)
    return 0


def configuration(url: str) -> dict[str, Any]:
    """The demo's settings; ``url`` is the model container."""
    chat = {
        "aliases": ["gpt-3.5-turbo", "gpt-4", "gpt-4o", "gpt-4o-mini"],
        "upstream": {"url": url},
        "template": "chatglm2",
        "logprobs": True,
        "tools": "hermes",
        "guided": True,
        "images": True,
        "image_token": "<image>\n",
    }
    embed = {
        "aliases": ["text-embedding-ada-002", "text-embedding-3-small", "text-embedding-3-large"],
        "upstream": {"url": url},
        "template": "plain",
    }
    return {
        "server": {"drain_timeout": DRAIN},
        "auth": {"mode": "none"},
        "default_model": MODEL,
        "models": {MODEL: chat, "demo-embed": embed},
    }


# --- the model container ---


@contextmanager
def demo_container() -> Iterator[subprocess.Popen[str]]:
    """The process of a container with the demo engine; it is gone afterwards.

    It holds the other end of a pipe to us, and ends when the pipe does: that is how it hears of a kill -9.
    In a session of its own, Ctrl-C does not reach it before we are done with it.
    """
    here = str(Path(gateway.__file__).parents[1])  # the demo starts anywhere, also without being installed
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "modal_backend", "--engine", "demo", "--port", "0", "--with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def container_url(container: subprocess.Popen[str]) -> str:
    """Where it answers, once it does. Raises ``CommandError``."""
    assert container.stdout is not None
    line = container.stdout.readline()
    if not line:
        raise CommandError("the demo's model container did not start; what it said is above")
    return str(json.loads(line)["url"])


class _Company:
    """What runs beside the server: a look at the container, and the introduction."""

    running: Running

    def __init__(self, container: subprocess.Popen[str], address: str) -> None:
        self.trouble: str | None = None  # why the demo cannot go on
        self._container = container
        self._address = address

    def show(self) -> None:
        for work in (self._watch, self._introduce):
            threading.Thread(target=work, daemon=True).start()

    def _watch(self) -> None:
        self._container.wait()
        self._end("the demo's model container ended by itself; what it said is above")

    def _introduce(self) -> None:
        print(f"{bold('modal-gateway')} {gateway.__version__}, a demo at {bold(self._address)}")
        print(dim("No model runs here: a container on this machine answers by fixed rules."))
        try:
            _ask(self._address)
        except (OSError, http.client.HTTPException, LookupError, ValueError) as exc:
            self._end(f"the demo did not answer itself: {exc}")
        else:
            if not self.running.stopping:
                print(_use(self._address), flush=True)

    def _end(self, trouble: str) -> None:
        if not self.running.stopping:
            self.trouble = trouble
            self.running.stop()


# --- what the person sees ---


def _ask(address: str) -> None:
    """Send one streamed request and show it arrive."""
    print(f"\n{dim('you')}   {GREETING}\n{dim('demo')}  ", end="", flush=True)
    began = time.monotonic()
    first = 0.0
    pieces = 0
    for piece in _pieces(address):
        first = first or time.monotonic() - began
        pieces += 1
        print(piece, end="", flush=True)
    took = time.monotonic() - began
    print(f"\n      {dim(f'first token after {first * 1000:.0f} ms, {pieces} pieces in {took:.1f} s')}\n")


def _pieces(address: str) -> Iterator[str]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": GREETING}], "stream": True}
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    try:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"}
        )
        response = connection.getresponse()
        while (line := response.readline()) != b"data: [DONE]\n":
            if not line:
                raise ValueError("the stream was cut")
            if line.startswith(b"data: "):
                deltas = [choice["delta"] for choice in json.loads(line[6:])["choices"]]
                yield from (delta["content"] for delta in deltas if delta.get("content"))
    finally:
        connection.close()


def _use(address: str) -> str:
    """What can be done now; each part can be pasted as it is."""
    url = f"{address}/v1/chat/completions -H 'content-type: application/json'"
    body = f'"model": "{MODEL}", "messages": [{{"role": "user", "content": "{GREETING}"}}]'
    return f"""\
{dim("# use it as if it were OpenAI")}
export OPENAI_BASE_URL={address}/v1 OPENAI_API_KEY=unused

{dim("# curl: whole, and streamed")}
curl {url} -d '{{{body}}}'
curl -N {url} -d '{{"stream": true, {body}}}'

{dim("# Python, with langchain-openai installed")}
from langchain_openai import ChatOpenAI
llm = ChatOpenAI()
print(llm.invoke("{GREETING}").content)

{dim("# your own endpoint instead of the demo")}
{program()} serve --url https://ecorp--custom-llm-endpoint.modal.run

{dim("# every endpoint, and what is measured")}
{address}/docs
{address}/metrics

{dim("Ctrl-C ends it.")}"""
