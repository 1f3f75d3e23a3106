"""What leaves the building: every connection and every look-up of a name, of processes as people start them.

Rule: nothing is replaced. Each process is watched twice over: by a hook in Python, which sees names as well,
on asyncio's own loop (a library in C would not tell it), and by strace, which sees every system call, on the
loop that is used. Only addresses of the configuration may be among them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from tests.cli.process import BOUND, COMMAND
from tests.clients.process import free_port
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

KEY, ADMIN = "sk-0123456789abcdef", "sk-admin-0123456789"
PROXIES = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"), "http://127.0.0.1:1")
COMMITTED = "a" * 40

HOOK = """
import json, os, sys

sys.modules["uvloop"] = None
told = os.open(os.environ["CONNECTIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def heard(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(arguments[1], tuple):
        os.write(told, (json.dumps(["connect", *arguments[1][:2]]) + "\\n").encode())
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        os.write(told, (json.dumps(["name", str(arguments[0]), 0]) + "\\n").encode())


sys.addaudithook(heard)
"""

Address = tuple[str, int]


@dataclass(frozen=True)
class Seen:
    """What a process and its children connected to, and which names were looked up."""

    addresses: frozenset[Address]
    names: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Watch:
    """A way to start a process so that it is seen what it does; ``seen`` once it ended, by its id."""

    before: Sequence[str]
    environ: Mapping[str, str]
    seen: Callable[[int], Seen]


def by_hook(folder: Path) -> Watch:
    told = folder / "told"
    told.touch()
    (folder / "sitecustomize.py").write_text(HOOK)

    def seen(_: int) -> Seen:
        lines = [json.loads(line) for line in told.read_text().splitlines()]
        names = frozenset(host for what, host, _ in lines if what == "name")
        return Seen(frozenset((host, port) for what, host, port in lines if what == "connect"), names)

    return Watch((), {"CONNECTIONS": str(told), "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}, seen)


ADDRESS = re.compile(
    r'sin6?_port=htons\((\d+)\).*?(?:inet_addr\("([\d.]+)"\)|inet_pton\(AF_INET6, "([\w:.]+)"\)?)'
)


def by_strace(folder: Path) -> Watch:
    """Names are looked up over port 53, which is an address like any other."""
    told, calls = folder / "calls", "trace=connect,sendto,sendmsg,sendmmsg"
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("there is no strace here")
    command = [strace, "-D", "-f", "-q", "-e", calls, "-o", str(told)]
    probe = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"strace may not be used here: {probe.stderr.strip()}")

    def seen(pid: int) -> Seen:
        until(lambda: bool(re.search(rf"^{pid} +\+\+\+ ", told.read_text(), re.MULTILINE)))
        found = ADDRESS.findall(told.read_text())
        return Seen(frozenset((four or six, int(port)) for port, four, six in found))

    return Watch(command, {"PYTHONPATH": str(ROOT)}, seen)


def until(condition: Callable[[], bool]) -> None:
    """Asks again until it is so."""
    end = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


@contextmanager
def started(
    watch: Watch, command: Sequence[str], ready: str, folder: Path
) -> Iterator[subprocess.Popen[str]]:
    """The process, once it printed ``ready``; it is ended, and must end well."""
    environ = {**os.environ, **PROXIES, **watch.environ}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [*watch.before, *command],
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            while ready not in (line := process.stdout.readline()):
                assert line, (folder / "log").read_text()
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(BOUND) in (0, -signal.SIGTERM), (folder / "log").read_text()
        finally:
            process.kill()


def configuration(container: int, more: str = "") -> str:
    return f"""
auth: {{keys: [{{name: me, key: {KEY}}}]}}
admin: {{key: {ADMIN}}}
models:
  mine:
    upstream: {{url: "http://127.0.0.1:{container}"}}
    template: chatml
    images: true
    image_token: "<i>"
  gone: {{upstream: {{url: "http://127.0.0.1:9"}}, template: plain}}
  inside: {{upstream: {{kind: demo}}}}
{more}"""


def ask_for_everything(client: httpx.Client, model: str) -> None:
    """Answers whole and streamed, of each API, and what is refused."""
    said = [{"role": "user", "content": "hello"}]
    for path, body in {
        "/v1/chat/completions": {"messages": said},
        "/v1/completions": {"prompt": "hello"},
        "/v1/messages": {"messages": said, "max_tokens": 5},
        "/v1/responses": {"input": "hello"},
    }.items():
        for stream in (False, True):
            answer = client.post(path, json={"model": model, "stream": stream, **body})
            assert answer.status_code == 200, answer.text
    picture = {"type": "image_url", "image_url": {"url": "https://pictures.example.com/cat.png"}}
    refused = client.post(
        "/v1/chat/completions",
        json={"model": "mine", "messages": [{"role": "user", "content": [picture]}]},
    )
    assert refused.status_code == 400
    assert client.post("/v1/chat/completions", json={"model": "gone", "messages": said}).status_code == 503
    assert client.post("/v1/chat/completions", json={"model": "nobody", "messages": said}).status_code == 404
    stranger = {"authorization": "Bearer sk-stranger-0123456789"}
    assert client.get("/v1/models", headers=stranger).status_code == 401


PAGES = ("/", "/docs", "/metrics", "/openapi.json", "/health/ready", "/v1/models")
OUTSIDE = re.compile(
    r"""(?:src|href|action)=["']?(?:https?:)?//|url\(["']?(?:https?:)?//|import ["']https?:"""
)


def read_every_page(client: httpx.Client) -> None:
    """None of them makes a browser ask another machine."""
    for path in PAGES:
        page = client.get(path)
        assert page.status_code in (200, 303, 404), (path, page.text)
        if "html" in page.headers.get("content-type", ""):
            assert not OUTSIDE.search(page.text), path
            policy = page.headers.get("content-security-policy", "")
            assert "default-src 'self'" in policy or "default-src 'none'" in policy, path
    admin = {"authorization": f"Bearer {ADMIN}"}
    assert client.get("/admin/upstreams", headers=admin).status_code == 200


OUTWARD = """
import socket, subprocess, sys

with socket.socket() as there:
    there.connect_ex(("127.0.0.1", 9))
try:
    socket.getaddrinfo("somewhere.invalid", 443)
except OSError:
    pass
if len(sys.argv) == 1:
    subprocess.run([sys.executable, __file__, "child"], check=True)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("way", [by_hook, by_strace])
def test_who_connects_to_others_is_seen(tmp_path: Path, way: Callable[[Path], Watch]) -> None:
    """Else the test below would be content with whatever happens."""
    watch = way(tmp_path)
    (tmp_path / "outward.py").write_text(OUTWARD)
    with started(watch, [sys.executable, "outward.py"], "ready", tmp_path) as process:
        pass
    seen = watch.seen(process.pid)
    assert ("127.0.0.1", 9) in seen.addresses
    assert not watch.before or not seen.names
    assert watch.before or "somewhere.invalid" in seen.names


@pytest.mark.parametrize("way", [by_hook, by_strace])
def test_a_gateway_and_a_model_container_connect_to_what_is_configured_and_to_nothing_else(
    tmp_path: Path, way: Callable[[Path], Watch]
) -> None:
    (tmp_path / "container").mkdir()
    inner, outer = way(tmp_path / "container"), way(tmp_path)
    behind, port = free_port(), free_port()
    file = tmp_path / "gateway.yaml"
    file.write_text(configuration(behind))
    container = [sys.executable, "-m", "modal_backend", "--delay", "0", "--port", str(behind)]
    serve = [*COMMAND, "serve", "--config", str(file), "--port", str(port), "--workers", "2"]
    headers = {"authorization": f"Bearer {KEY}"}
    with (
        started(inner, container, "ready", tmp_path / "container") as model,
        started(outer, serve, "see also", tmp_path) as gateway,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client,
    ):
        ask_for_everything(client, "mine")
        ask_for_everything(client, "inside")
        read_every_page(client)
        file.write_text(configuration(behind, "  later: {upstream: {kind: demo}}\n"))
        gateway.send_signal(signal.SIGHUP)
        until(lambda: client.get("/v1/models/later").status_code == 200)
    itself = ("127.0.0.1", port)  # what the parent finds out that its workers listen with
    only(outer.seen(gateway.pid), {("127.0.0.1", behind), ("127.0.0.1", 9)}, itself)
    only(inner.seen(model.pid), set())


def only(seen: Seen, addresses: set[Address], *besides: Address) -> None:
    assert seen.addresses - set(besides) == addresses
    assert [name for name in seen.names if not NUMBER.fullmatch(name)] == []


NUMBER = re.compile(r"[\d.]+|::1?|None")
"""What the resolver is given and asks nobody about."""


@pytest.fixture
def mirror() -> Iterator[tuple[str, list[str]]]:
    """A hub with one model, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            body = b"{}"
            if "/tree/" in self.path:
                body = json.dumps([{"type": "file", "path": "config.json", "size": 2, "oid": "1"}]).encode()
            elif self.path.startswith("/api/"):
                body = json.dumps(
                    {"id": "org/name", "sha": COMMITTED, "siblings": [{"rfilename": "config.json"}]}
                ).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.send_header("etag", '"1"')
            self.send_header("x-repo-commit", COMMITTED)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@pytest.mark.skipif(find_spec("huggingface_hub") is None, reason="huggingface_hub is not installed")
def test_weights_come_from_the_mirror_that_is_named(tmp_path: Path, mirror: tuple[str, list[str]]) -> None:
    url, asked = mirror
    watch = by_hook(tmp_path)
    download = "from huggingface_hub import snapshot_download as s; print(s('org/name', revision='main'))"
    own = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(tmp_path / "hub"),
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", download],
        env={**os.environ, **watch.environ, **own},
        capture_output=True, text=True, timeout=BOUND, check=False,
    )  # fmt: skip
    assert done.stdout.strip().endswith(COMMITTED), done.stderr
    assert any(path.endswith("config.json") for path in asked)
    assert {f"http://{host}:{port}" for host, port in watch.seen(0).addresses} == {url}
