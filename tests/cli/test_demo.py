"""The demo, from an empty directory, over a real socket: what it says is what it does."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.process import BOUND, Running, all_gone, children, events, run, running

SENTENCE = "你好！我是人工智能助手 ChatGLM2-6B，很高兴见到你，欢迎问我任何问题。"
CUT = "你好！我是人工智能助手 ChatGLM2-6B，很高兴见到你，"
CHAT = {"model": "chatglm2-6b", "messages": [{"role": "user", "content": "你好"}]}
LAST = "Ctrl-C ends it."


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running("demo", "--port", "0", cwd=tmp_path_factory.mktemp("empty"), until=LAST) as started:
        yield started


@pytest.fixture(scope="module")
def client(demo: Running) -> Iterator[httpx.Client]:
    with demo.client() as client:
        yield client


def text(answer: httpx.Response) -> str:
    """The text of a streamed answer that ended as it should."""
    assert answer.status_code == 200
    *chunks, done = events(answer)
    assert done == "[DONE]"
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in json.loads(chunk)["choices"]
    )


def test_it_shows_itself_answering_and_says_that_no_model_runs(demo: Running) -> None:
    assert "No model runs here" in demo.shown
    assert SENTENCE in demo.shown
    assert re.search(r"first token after \d+ ms, \d+ pieces in \d+\.\d s", demo.shown)
    assert "\x1b" not in demo.shown  # no colours where there is no terminal


@pytest.mark.parametrize(("stop", "said"), [(None, SENTENCE), (["欢迎"], CUT)])
def test_the_greeting_whole(client: httpx.Client, stop: list[str] | None, said: str) -> None:
    answer = client.post("/v1/chat/completions", json=CHAT | {"stop": stop}).json()
    assert answer["choices"][0]["message"]["content"] == said
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["model"] == "chatglm2-6b"


@pytest.mark.parametrize(("stop", "said"), [(None, SENTENCE), (["欢迎"], CUT)])
def test_the_greeting_streamed(client: httpx.Client, stop: list[str] | None, said: str) -> None:
    answer = client.post("/v1/chat/completions", json=CHAT | {"stop": stop, "stream": True})
    assert text(answer) == said


def test_the_models(client: httpx.Client) -> None:
    names = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert names[:2] == ["chatglm2-6b", "demo-embed"]
    assert {"gpt-3.5-turbo", "gpt-4o-mini"} <= set(names)
    assert not any(name.startswith("gpt-6") for name in names)


@pytest.mark.parametrize("model", ["gpt-4o-mini", "never/heard-of-it", None])
def test_any_other_name_means_the_first_model(client: httpx.Client, model: str | None) -> None:
    answer = client.post("/v1/chat/completions", json=CHAT | {"model": model}).json()
    assert answer["choices"][0]["message"]["content"] == SENTENCE


def test_it_gives_logprobs(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", json=CHAT | {"logprobs": True, "top_logprobs": 2}).json()
    assert len(answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 2


def test_the_pages_it_names_are_there(demo: Running) -> None:
    links = [line for line in demo.shown.splitlines() if line.startswith("http")]
    assert len(links) == 3
    for link in links:
        assert httpx.get(link).status_code == 200


def test_the_console_s_address_logs_in_and_shows_what_was_asked(demo: Running) -> None:
    [line] = (line for line in demo.shown.splitlines() if "#ticket=" in line)
    root, _, ticket = line.partition("/#ticket=")
    assert root == demo.root
    with httpx.Client(base_url=root, timeout=BOUND, headers={"sec-fetch-site": "same-origin"}) as browser:
        told = browser.post("/console/session", json={"ticket": ticket}).json()
        assert told["keeps"] == {"keys": True, "ledger": True}
        assert browser.post("/v1/chat/completions", json=CHAT).status_code == 200
        end = time.monotonic() + BOUND
        while "console" not in (
            names := [row["key_name"] for row in browser.get("/admin/requests").json()["data"]]
        ):
            assert time.monotonic() < end, names
        assert browser.post("/admin/keys", json={"name": "ann"}).status_code == 201
        # where no key is needed, an address that was used does no harm
        assert browser.post("/console/session", json={"ticket": ticket}).status_code == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_curl_lines_it_prints_work_as_they_are(demo: Running) -> None:
    whole, streamed = (line for line in demo.shown.splitlines() if line.startswith("curl"))
    assert json.loads(output(whole))["choices"][0]["message"]["content"] == SENTENCE
    assert output(streamed).endswith(b"data: [DONE]\n\n")


def output(line: str) -> bytes:
    return subprocess.run(shlex.split(line), check=True, capture_output=True, timeout=BOUND).stdout


def test_the_environment_it_prints_is_that_of_openai_s_clients(demo: Running) -> None:
    [line] = (line for line in demo.shown.splitlines() if line.startswith("export"))
    assert line == f"export OPENAI_BASE_URL={demo.root}/v1 OPENAI_API_KEY=unused"


def test_a_page_of_another_site_cannot_call_it(demo: Running) -> None:
    with demo.client(host="evil.example") as foreign:
        assert foreign.post("/v1/chat/completions", json=CHAT).status_code == 403
    with demo.client() as form:
        body = {"content": json.dumps(CHAT), "headers": {"content-type": "text/plain"}}
        assert form.post("/v1/chat/completions", **body).status_code == 415


def test_a_signal_ends_it_and_leaves_no_process(tmp_path: Path) -> None:
    with running("demo", "--port", "0", cwd=tmp_path, until=LAST) as demo:
        below = children(demo.process.pid)
        assert below
        with all_gone(below):
            code, out, err = demo.stop(signal.SIGTERM)
        assert (code, out) == (0, "")
        only_requests(err)


def only_requests(err: str) -> list[int]:
    """The statuses of the requests that have a line; nothing else was said."""
    lines = [json.loads(line) for line in err.splitlines()]
    assert all(line["event"] == "request" for line in lines), err
    return [line["status"] for line in lines]


def test_each_request_leaves_a_line(tmp_path: Path) -> None:
    with running("demo", "--port", "0", cwd=tmp_path, until=LAST) as demo:
        with demo.client() as client:
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
            assert client.post("/v1/chat/completions", json={}).status_code == 400
            assert client.get("/v1/models").status_code == 200
        _, out, err = demo.stop()
    assert only_requests(err) == [200, 200, 400]  # the first is what it asked itself
    assert out == ""


def test_it_can_be_stopped_while_it_introduces_itself(tmp_path: Path) -> None:
    with running("demo", "--port", "0", cwd=tmp_path, until="No model") as demo:
        below = children(demo.process.pid)
        with all_gone(below):
            code, _, err = demo.stop(signal.SIGINT)
        assert code == 0
        only_requests(err)


def test_killed_it_leaves_no_process(tmp_path: Path) -> None:
    with (
        running("demo", "--port", "0", cwd=tmp_path, until=LAST) as demo,
        all_gone(children(demo.process.pid)),
    ):
        demo.process.kill()


def test_it_ends_when_its_container_does(tmp_path: Path) -> None:
    with running("demo", "--port", "0", cwd=tmp_path, until=LAST) as demo:
        [container] = children(demo.process.pid)
        os.kill(container, signal.SIGKILL)
        code, _, err = demo.wait()
    assert code == 2
    *lines, last = err.splitlines(keepends=True)
    assert last.startswith("error: the demo's model container ended by itself")
    only_requests("".join(lines))


def test_a_port_in_use_is_one_line_with_the_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("demo", "--port", str(port), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    way_out = rf"make run PORT={port + 1}, or .+ demo --port {port + 1}"
    assert re.fullmatch(rf"error: port {port} of 127\.0\.0\.1 is in use: {way_out}\n", done.stderr)
