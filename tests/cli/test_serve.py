"""`serve` as a process: with a file, without one, with keys, workers and TLS; and how it ends."""

import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.process import BOUND, Running, all_gone, children, environment, run, running
from tests.conftest import ROOT

SHIPPED = ROOT / "config" / "gateway.yaml"
CHAT = {"model": "my-model", "messages": [{"role": "user", "content": "Identify yourself, bot!"}]}
READY = "see also"  # the last block of what is shown; its further lines wait in the pipe


@dataclass
class Endpoint:
    """The endpoint of the oldest kind: `POST {"prompt"} -> {"prompt"}`."""

    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)  # answers wait until it is set
    arrived: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            made.arrived.set()
            assert made.hold.wait(BOUND)
            body = b'{"prompt": "hello world"}'
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Endpoint(f"http://127.0.0.1:{server.server_port}")
        made.hold.set()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def serving(cwd: Path, *arguments: str, **env: str) -> Any:
    return running("serve", "--port", "0", *arguments, cwd=cwd, until=READY, env=env)


def said(gateway: Running, **headers: str) -> str:
    with gateway.client(**headers) as client:
        answer = client.post("/v1/chat/completions", json=CHAT)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])


# --- without a file ---


def test_one_s_own_endpoint_gets_the_message_as_it_is_under_any_name(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    with serving(tmp_path, "--url", endpoint.url) as gateway, gateway.client() as client:
        assert "none: this machine alone may call" in gateway.shown
        assert said(gateway) == "hello world"
        assert endpoint.asked == [{"prompt": "Identify yourself, bot!"}]
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["my-model"]
        answer = client.post("/v1/chat/completions", json=CHAT | {"model": "gpt-3.5-turbo"})
        assert answer.json()["model"] == "gpt-3.5-turbo"
        assert client.get("/metrics").status_code == client.get("/docs").status_code == 200


def test_a_model_that_was_named_has_that_name_alone(tmp_path: Path, endpoint: Endpoint) -> None:
    arguments = ("--url", endpoint.url, "--model", "mine", "--template", "chatml")
    with serving(tmp_path, *arguments) as gateway, gateway.client() as client:
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 404
        assert client.post("/v1/chat/completions", json=CHAT | {"model": "mine"}).status_code == 200
    assert endpoint.asked[0]["prompt"].startswith("<|im_start|>user\nIdentify")


def test_a_key_of_the_environment_is_asked_for(tmp_path: Path, endpoint: Endpoint) -> None:
    with serving(tmp_path, "--url", endpoint.url, GATEWAY_API_KEY="sk-mine") as gateway:
        with gateway.client() as client:
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 401
        assert said(gateway, authorization="Bearer sk-mine") == "hello world"


def test_an_openai_server_gets_the_chat_under_the_name_it_knows(tmp_path: Path, endpoint: Endpoint) -> None:
    arguments = ("--url", f"{endpoint.url}/v1", "--kind", "openai", "--model", "my-model")
    with serving(tmp_path, *arguments) as gateway, gateway.client() as client:
        client.post("/v1/chat/completions", json=CHAT)
    assert endpoint.asked[0]["model"] == "my-model"
    assert endpoint.asked[0]["messages"] == CHAT["messages"]


def test_whoever_says_so_opens_the_door_to_all(tmp_path: Path, endpoint: Endpoint) -> None:
    arguments = ("--url", endpoint.url, "--host", "0.0.0.0", "--insecure-no-auth")
    with serving(tmp_path, *arguments) as gateway:
        assert "none: anyone may call" in gateway.shown
        assert said(gateway, host="gpu-box.example:8000") == "hello world"
        with gateway.client() as client:
            assert client.get("/metrics").status_code == 200
        _, _, err = gateway.stop()
    assert err.startswith("warning: NO AUTHENTICATION")


# --- with a file ---


def test_the_shipped_file_serves_once_its_url_is_set(tmp_path: Path, endpoint: Endpoint) -> None:
    text = SHIPPED.read_text()
    [placeholder] = re.findall(r'url: "(.+)"', text)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "gateway.yaml").write_text(text.replace(placeholder, endpoint.url))
    key = run("keys", "create", "--name", "me", cwd=tmp_path).stdout.strip()
    with serving(tmp_path, GATEWAY_API_KEY=key) as gateway:
        assert said(gateway, authorization=f"Bearer {key}") == "hello world"
        with gateway.client() as client:
            assert client.get("/v1/models").status_code == 401


def test_the_line_that_keys_create_prints_lets_its_key_in(tmp_path: Path, endpoint: Endpoint) -> None:
    made = run("keys", "create", "--name", "team: a", cwd=tmp_path)
    [line] = (line for line in made.stderr.splitlines() if line.lstrip().startswith("- {"))
    model = f'models: {{my-model: {{upstream: {{url: "{endpoint.url}"}}, template: plain}}}}'
    (tmp_path / "mine.yaml").write_text(f"auth:\n  keys:\n{line}\n{model}\n")
    with serving(tmp_path, MODAL_GATEWAY_CONFIG="mine.yaml") as gateway:
        assert "team: a" in gateway.shown
        assert said(gateway, authorization=f"Bearer {made.stdout.strip()}") == "hello world"


def test_a_file_on_the_command_line_comes_before_that_of_the_environment(tmp_path: Path) -> None:
    for name in ("first", "second"):
        model = f'{{{name}: {{upstream: {{url: "http://127.0.0.1:9"}}}}}}'
        text = f"auth: {{mode: none}}\nmodels: {model}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    with serving(tmp_path, "--config", "second.yaml", MODAL_GATEWAY_CONFIG="first.yaml") as gateway:
        assert "second" in gateway.shown and "first" not in gateway.shown
        _, _, err = gateway.stop()
    assert err == ""


def test_a_serving_process_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    script = "import sys, gateway.cli.commands, gateway.cli.serving; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment({}), capture_output=True, text=True, check=True
    )
    assert not {"rich", "httpx", "openai", "modal", "tokenizers", "sqlalchemy"} & set(done.stdout.split())


# --- the end ---


def test_a_signal_ends_it_and_the_request_it_is_serving_is_answered(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    endpoint.hold.clear()
    answers: list[str] = []
    with serving(tmp_path, "--url", endpoint.url) as gateway:
        caller = threading.Thread(target=lambda: answers.append(said(gateway)))
        with gateway.client() as idle:
            idle.get("/health")
            caller.start()
            assert endpoint.arrived.wait(BOUND)
            gateway.process.send_signal(signal.SIGTERM)
            port = int(gateway.root.rpartition(":")[2])
            with pytest.raises(ConnectionError):  # once it has stopped listening
                while True:
                    socket.create_connection(("127.0.0.1", port), timeout=BOUND).close()
        endpoint.hold.set()
        caller.join(BOUND)
        assert gateway.wait()[0] == 0
    assert answers == ["hello world"]


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve", "--url", "http://127.0.0.1:9", "--port", port, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: port {port} of 127.0.0.1 is in use: choose another with --port\n"


# --- workers ---


def test_two_workers_serve_and_a_signal_leaves_no_process(tmp_path: Path, endpoint: Endpoint) -> None:
    with serving(tmp_path, "--url", endpoint.url, "--workers", "2") as gateway:
        assert said(gateway) == "hello world"
        below = children(gateway.process.pid)
        assert len(below) >= 2
        with all_gone(below):
            code, _, err = gateway.stop()
        assert code == 0
        warned, line = err.splitlines()
        assert warned.startswith("warning: each of the 2 workers")
        assert json.loads(line)["status"] == 200


@pytest.mark.slow
def test_killed_it_leaves_no_worker(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "--url", "http://127.0.0.1:9", "--workers", "2") as gateway,
        all_gone(children(gateway.process.pid)),
    ):
        gateway.process.kill()


def test_each_of_several_workers_takes_its_share() -> None:
    from gateway.cli.serving import share
    from gateway.settings import settings_from

    upstreams = [{"url": "http://127.0.0.1:9", "max_concurrency": most} for most in (100, 3)]
    settings = settings_from({"models": {"m": {"upstreams": upstreams}}})
    for workers, wanted in ((1, [100, 3]), (2, [50, 1]), (4, [25, 1])):
        shared = share(settings, workers).models["m"].upstreams
        assert [upstream.max_concurrency for upstream in shared] == wanted


# --- TLS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(certificate, key) for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    subprocess.run(
        [*new, *names, "-days", "2", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


def test_tls(tmp_path: Path, endpoint: Endpoint, certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    arguments = ("--url", endpoint.url, "--ssl-certfile", cert, "--ssl-keyfile", key)
    with serving(tmp_path, *arguments) as gateway:
        assert gateway.root.startswith("https://")
        gateway.trust = ssl.create_default_context(cafile=cert)
        assert said(gateway) == "hello world"


@pytest.mark.slow
def test_two_workers_with_tls(tmp_path: Path, endpoint: Endpoint, certificate: tuple[Path, Path]) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in certificate))
    with serving(tmp_path, "--url", endpoint.url, "--workers", "2", "--ssl-certfile", str(both)) as gateway:
        gateway.trust = ssl.create_default_context(cafile=certificate[0])
        assert said(gateway) == "hello world"


def test_a_key_of_another_certificate_is_refused(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, _ = certificate
    arguments = ("--url", "http://127.0.0.1:9", "--ssl-certfile", str(cert), "--ssl-keyfile", str(cert))
    done = run("serve", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: --ssl-certfile .+ and --ssl-keyfile .+ cannot be used: .+\n", done.stderr)
