"""``demo``: the gateway in front of a model container on this machine, which runs no model.

Rule: everything between client and container is the real thing; only the answers come from fixed rules, and
that is said wherever they are shown. The container is a process of its own that ends with this one, however
this one ends.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import gateway
from gateway.cli.address import bind
from gateway.cli.interrupts import Stops, stops
from gateway.cli.output import beside
from gateway.cli.show import CommandError, bold, dim, log_json, log_style, program
from gateway.http.server import Running, configure, stoppable

if TYPE_CHECKING:
    from gateway.settings import Settings

MODEL = "chatglm2-6b"
GREETING = "你好"
DRAIN = 2  # seconds that open requests get when the demo is stopped
PATIENCE = 5  # seconds that the container gets to end by itself


def demo(port: int) -> int:
    """Serve the demo until told to stop; the exit code."""
    other = port + 1 if port < 65535 else 8000
    sock = bind("127.0.0.1", port, f"make run PORT={other}, or {program()} demo --port {other}")
    with stops() as asked:
        try:
            return _serve(sock, asked)
        except CommandError:
            if asked.code:  # what it complains of was our doing
                return asked.code
            raise


def _serve(sock: socket.socket, asked: Stops) -> int:
    """The exit code: 0, or what tells of a signal that came before anything was served."""
    address = f"http://127.0.0.1:{sock.getsockname()[1]}"
    store = TemporaryDirectory(prefix="modal-gateway-demo-", ignore_cleanup_errors=True)
    with store as folder, demo_container() as container:
        asked.by(container.terminate)
        from gateway.app import Site, application  # takes as long as the container to start, so meanwhile
        from gateway.console.sessions import Tickets
        from gateway.settings import settings_from

        settings, tickets = settings_from(configuration(container_url(container))), Tickets(time.time)
        make_store(settings, Path(folder))
        log = settings.server.log
        site = Site(Path(folder), loopback=True, store=True, log=log_style(log), tickets=tickets)
        app = stoppable(application(settings, site))
        company = _Company(container, address, tickets.new)
        company.running = Running(configure(app, DRAIN, json=log_json(log)), sock, company.show)
        asked.by(company.running.stop)
        if asked.code:
            return asked.code
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


def make_store(settings: Settings, folder: Path) -> None:
    """The database of keys and ledger, which nobody has to bring up to date."""
    from gateway.store.engine import open_engine
    from gateway.store.schema import make

    engine = open_engine(settings.store.url, folder)
    make(engine)
    engine.dispose()


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

    def __init__(self, container: subprocess.Popen[str], address: str, ticket: Callable[[], str]) -> None:
        self.trouble: str | None = None  # why the demo cannot go on
        self._container = container
        self._address = address
        self._ticket = ticket  # makes one

    def show(self) -> None:
        for work in (self._watch, partial(beside, self._introduce)):
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
                print(_use(self._address, self._ticket()))

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


def _use(address: str, ticket: str) -> str:
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

{dim("# the console: models, a playground, keys and what was used; this address logs in once")}
{address}/#ticket={ticket}

{dim("# every endpoint, and what is measured")}
{address}/docs
{address}/metrics

{dim("Ctrl-C ends it.")}"""
