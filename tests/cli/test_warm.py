"""`warm` as a process: straight to an endpoint, through a running gateway, and what can go wrong."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.process import on_terminal, run, running

pytestmark = pytest.mark.slow

KEY = "sk-admin-0123456789"
ALWAYS = '{cron: "* * * * *", until: 2h}'


@dataclass
class Edge:
    """Answers GET with 503 ``absent`` times, then as an app without one; ``status`` in place of both."""

    url: str
    absent: int = 0
    status: int = 0
    asked: list[str] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def edge() -> Iterator[Edge]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.command)
            made.arrived.set()
            status = made.status or (503 if len(made.asked) <= made.absent else 405)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Edge(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def configured(folder: Path, url: str, more: str = "") -> None:
    model = f'{{aliases: [org/mine], upstream: {{url: "{url}"}}, template: plain{more}}}'
    (folder / "gateway.yaml").write_text(f"auth: {{mode: none}}\nmodels: {{my-model: {model}}}\n")


def warm(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {"MODAL_GATEWAY_CONFIG": "gateway.yaml", "MODAL_GATEWAY_ADMIN_KEY": "", **env}
    return run("warm", *arguments, cwd=folder, env=environ)


def test_a_model_is_woken_without_a_gateway(tmp_path: Path, edge: Edge) -> None:
    edge.absent = 2
    configured(tmp_path, edge.url)
    done = warm(tmp_path, "org/mine")
    assert done.returncode == 0
    assert re.fullmatch(r"org/mine: booting, [12] s\n", done.stderr)
    assert re.fullmatch(r"warm after \d\.\d s\n", done.stdout)
    assert edge.asked == ["GET"] * 3


def test_in_json_each_line_says_how_far_it_is(tmp_path: Path, edge: Edge) -> None:
    edge.absent = 2
    configured(tmp_path, edge.url)
    lines = [json.loads(line) for line in warm(tmp_path, "my-model", "--json").stdout.splitlines()]
    assert [line["state"] for line in lines][:1] == ["booting"]
    assert lines[-1]["state"] == "warm"
    assert all(set(line) == {"state", "elapsed", "expected"} for line in lines)


@pytest.mark.parametrize(
    ("status", "arguments", "said"),
    [
        (401, (), "error: The upstream refused the gateway's credentials"),
        (503, ("--timeout", "1"), "error: No container of this model is ready"),
    ],
)
def test_what_cannot_be_woken_is_one_line_and_exit_code_1(
    tmp_path: Path, edge: Edge, status: int, arguments: tuple[str, ...], said: str
) -> None:
    edge.status = status
    configured(tmp_path, edge.url)
    done = warm(tmp_path, "my-model", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    *_, line = done.stderr.splitlines()  # before it, how far it was
    assert line.startswith(said)
    told = json.loads(warm(tmp_path, "my-model", "--json", *arguments).stdout.splitlines()[-1])
    assert f"error: {told['error']['message']}" == line


def test_a_name_that_is_not_there_or_a_gateway_that_is_not_is_exit_code_2(tmp_path: Path, edge: Edge) -> None:
    configured(tmp_path, edge.url)
    done = warm(tmp_path, "other")
    assert (done.returncode, done.stderr) == (2, "error: there is no model other; there are my-model\n")
    gone = warm(tmp_path, "my-model", "--gateway", "http://127.0.0.1:9")
    assert gone.returncode == 2
    assert gone.stderr.startswith("error: http://127.0.0.1:9 cannot be asked")
    edge.status = 200  # something that is no gateway; it has no POST either
    strange = warm(tmp_path, "my-model", "--gateway", edge.url)
    assert (strange.returncode, strange.stdout) == (2, "")
    assert "501" in strange.stderr


def test_a_running_gateway_wakes_it_and_knows(tmp_path: Path, edge: Edge) -> None:
    edge.absent = 1
    configured(tmp_path, edge.url)
    serve = ("serve", "--config", "gateway.yaml", "--port", "0")
    env = {"MODAL_GATEWAY_ADMIN_KEY": KEY}
    with running(*serve, cwd=tmp_path, until="see also", env=env) as gateway, gateway.client() as client:
        for wrong in ("", "sk-admin-9876543210"):
            refused = warm(
                tmp_path, "my-model", "--gateway", gateway.root, "--json", MODAL_GATEWAY_ADMIN_KEY=wrong
            )
            assert (refused.returncode, refused.stdout, edge.asked) == (2, "", [])
            assert refused.stderr.startswith("error: The admin API wants its own key, that of admin.key")
        done = warm(tmp_path, "org/mine", "--gateway", f"{gateway.root}/v1", **env)
        assert done.returncode == 0, done.stderr
        assert client.get("/v1/models/my-model").json()["x_gateway"]["state"] == "warm"
        unknown = warm(tmp_path, "nope", "--gateway", gateway.root, **env)
        assert unknown.returncode == 2
        assert "does not exist" in unknown.stderr
        edge.status = 401
        failed = warm(tmp_path, "my-model", "--gateway", gateway.root, **env)
        assert failed.returncode == 1
        assert "refused the gateway's credentials" in failed.stderr


def test_of_several_workers_none_keeps_the_hours_and_the_parent_does(tmp_path: Path, edge: Edge) -> None:
    configured(tmp_path, edge.url, f", warm: {ALWAYS}")
    serve = ("serve", "--config", "gateway.yaml", "--port", "0", "--workers", "2")
    with running(*serve, cwd=tmp_path, until="see also") as gateway:
        assert edge.arrived.wait(10)
        code, _, _ = gateway.stop()
    assert (code, edge.asked) == (0, ["GET"])


def test_a_terminal_shows_a_bar_and_keeps_no_trace_of_it(tmp_path: Path, edge: Edge) -> None:
    edge.absent = 2
    configured(tmp_path, edge.url)
    shown = on_terminal("warm", "my-model", "--config", "gateway.yaml", cwd=tmp_path)
    assert shown.code == 0
    assert re.search("my-model booting +━", shown.text)
    cleared = r"\x1b\[1A\x1b\[2K"  # the line above, which was the bar's
    assert re.search(cleared + r"\x1b\[32mwarm\x1b\[0m after \d\.\d s\n$", shown.sent)


def test_a_terminal_shows_the_time_that_is_left_where_boots_were_seen(tmp_path: Path) -> None:
    steps = [("booting", 1.0), ("booting", 3.0), ("warm", 4.2)]
    lines = [json.dumps({"state": state, "elapsed": at, "expected": 4.0}) for state, at in steps]

    class Gateway(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            for line in lines:
                self.wfile.write(f"{line}\n".encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        shown = on_terminal("warm", "mine", "--gateway", url, cwd=tmp_path)
        piped = warm(tmp_path, "mine", "--gateway", url)
        server.shutdown()
        thread.join()
    assert shown.code == piped.returncode == 0
    assert "about 1 s left" in shown.text
    assert piped.stderr == "mine: booting, 1 s, about 3 s left\n"
    assert piped.stdout == "warm after 4.2 s\n"


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"NO_COLOR": "1"}], ids=str)
def test_a_terminal_that_wants_no_colours_gets_none(tmp_path: Path, edge: Edge, env: dict[str, str]) -> None:
    edge.absent = 1
    configured(tmp_path, edge.url)
    shown = on_terminal("warm", "my-model", "--config", "gateway.yaml", cwd=tmp_path, env=env)
    assert shown.code == 0 and "booting" in shown.text
    assert not re.search(r"\x1b\[[0-9;]*m", shown.sent)
