"""What an upstream answers and what the client sees of it: every row, whole and streamed.

Each row says status, code, type, the headers that tell clients what to do, what the message names, and how
often the upstream was called.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.app import App, build_app
from gateway.core import modal
from gateway.core.events import Text
from gateway.settings import settings_from
from tests.serve.house import BOUND, Desk, Line, Scripted, Visit, container, deployed, faster, settings, soon
from tests.serve.test_chat import ASK, text

AT = "models.m.upstream"


@dataclass(frozen=True)
class Row:
    """An answer of the upstream, and the client's."""

    name: str
    status: str
    body: bytes | Mapping[str, Any]
    code: str
    seen: int  # the client's status
    says: str = ""  # part of the message
    calls: int = 1  # of the upstream
    of_two: int = 2  # calls where the model has another upstream, which fails in the same way
    retry_after: str | None = None
    hopeless: bool = False  # x-should-retry: false
    type: str = "api_error"
    headers: Mapping[str, str] = field(default_factory=dict)  # of the upstream's answer
    upstream: Mapping[str, Any] = field(default_factory=dict)  # further keys of its entry


def edge_text(text: str) -> bytes:
    assert text.startswith(modal.PREFIX)
    return text.encode()


PROXY_TOKEN = {"modal_key": "wk-1", "modal_secret": "ws-1"}
FASTCHAT = "400 Bad Request"
ROWS = (
    Row("401 without credentials", "401 Unauthorized", edge_text(modal.MISSING_CREDENTIALS), "upstream_auth",
        502, f"check modal_key and modal_secret, or api_key, of {AT}", hopeless=True),
    Row("401 with wrong credentials", "401 Unauthorized", edge_text(modal.INVALID_CREDENTIALS),
        "upstream_auth", 502, f"check modal_key and modal_secret of {AT}", hopeless=True,
        upstream=PROXY_TOKEN),
    Row("401 of a server", "401 Unauthorized", {"error": {"message": "bad key", "code": "invalid_api_key"}},
        "upstream_auth", 502, f"check api_key of {AT}", hopeless=True, upstream={"api_key": "sk-1234"}),
    Row("403", "403 Forbidden", b"", "upstream_auth", 502, AT, hopeless=True),
    Row("stopped", "404 Not Found", edge_text(modal.STOPPED), "upstream_stopped", 503,
        f"stopped: deploy it again, or change {AT}.url", hopeless=True),
    Row("disabled", "404 Not Found", edge_text(modal.DISABLED.format(workspace="acme")), "upstream_stopped",
        503, f"disabled: check its billing, or change {AT}.url", hopeless=True),
    Row("unknown function", "404 Not Found", edge_text(modal.UNKNOWN), "upstream_not_found", 502,
        f"{AT}.url", calls=2, of_two=3),
    Row("other 404", "404 Not Found", b"nothing here", "upstream_not_found", 502, f"check {AT}.url",
        hopeless=True),
    Row("408", "408 Request Timeout", modal.LOST.encode(), "upstream_unavailable", 503, "lost the request",
        calls=2, of_two=3, retry_after="5"),
    Row("bad redirect", "400 Bad Request", edge_text(modal.BAD_REDIRECT), "upstream_error", 502, f"{AT}.url",
        of_two=1),
    Row("400 in JSON", "400 Bad Request", {"error": {"message": "top_k is odd", "code": "bad_request"}},
        "upstream_bad_request", 400, "top_k is odd", type="invalid_request_error", of_two=1),
    Row("400 too long", "400 Bad Request", {"error": {"message": "x", "code": "context_length_exceeded"}},
        "context_length_exceeded", 400, "maximum context length", type="invalid_request_error", of_two=1),
    Row("400 of something", "400 Bad Request", b"<html>no</html>", "upstream_refused", 502,
        f"check {AT}.url and {AT}.kind", hopeless=True, of_two=1),
    Row("413 in JSON", "413 Too Large", {"error": {"message": "too much", "code": 413}},
        "upstream_bad_request", 400, "too much", type="invalid_request_error", of_two=1),
    Row("422 refuses a field", "422 Unprocessable",
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "top_k"], "msg": "no", "input": 1}]},
        "upstream_refused", 502, f"write {AT}.request_fields: {{top_k: null}}", hopeless=True, of_two=1),
    Row("422 misses a field", "422 Unprocessable",
        {"detail": [{"type": "missing", "loc": ["body", "inputs"], "msg": "needed"}]},
        "upstream_refused", 502, f"write {AT}.request_fields: {{prompt: inputs}}", hopeless=True, of_two=1),
    Row("429 of the edge", "429 Too Many Requests", b"", "upstream_rate_limited", 429, "no more calls",
        retry_after="5", type="rate_limit_error"),
    Row("429 that says when", "429 Too Many Requests", b"", "upstream_rate_limited", 429,
        retry_after="17", type="rate_limit_error", headers={"retry-after": "17"}),
    Row("429 that says much later", "429 Too Many Requests", b"", "upstream_rate_limited", 429,
        retry_after="60", type="rate_limit_error", headers={"retry-after": "3600"}),
    Row("429 of a server", "429 Too Many Requests", {"error": {"message": "full", "code": "busy"}},
        "upstream_rate_limited", 429, "busy", retry_after="5", type="rate_limit_error"),
    Row("500 timed out", "500 Error", edge_text(modal.TIMED_OUT), "upstream_timeout", 504,
        "raise timeout= there", hopeless=True, of_two=1),
    Row("500 terminated", "500 Error", edge_text(modal.TERMINATED), "upstream_error", 502),
    Row("500 lost", "500 Error", edge_text(modal.LOST_TRACK), "upstream_error", 502),
    Row("500 raised", "500 Error", edge_text(modal.RAISED.format(error="KeyError('secret')")),
        "upstream_error", 502),
    Row("500 of a server", "500 Error", {"error": "it broke"}, "upstream_error", 502, "it broke"),
    Row("502", "502 Bad Gateway", b"<html></html>", "upstream_error", 502),
    Row("503 in JSON", "503 Unavailable", {"error": {"message": "soon", "code": "loading"}},
        "upstream_unavailable", 503, "soon", retry_after="5"),
    Row("503 out of memory", "503 Unavailable", {"error": {"message": "x", "code": "out_of_memory"}},
        "out_of_memory", 503, "GPU memory", retry_after="5"),
    Row("503 dead engine", "503 Unavailable", {"error": {"message": "x", "code": "engine_dead"}},
        "engine_dead", 503, "engine died", retry_after="5"),
    Row("504", "504 Gateway Timeout", b"", "upstream_timeout", 504, "gave up waiting"),
    Row("redirect", "302 Found", b"", "upstream_redirect", 502, f"set {AT}.url to the final address",
        hopeless=True, headers={"location": "/login"}, of_two=1),
    Row("303 elsewhere", "303 See Other", b"", "upstream_redirect", 502, f"set {AT}.url", hopeless=True,
        headers={"location": "http://203.0.113.9/result"}, of_two=1),
    Row("303 to nowhere", "303 See Other", b"", "upstream_redirect", 502, f"set {AT}.url", hopeless=True,
        of_two=1),
    Row("HTML", "200 OK", b"<html><body>hello</body></html>", "upstream_bad_response", 502,
        headers={"content-type": "text/html"}, of_two=1),
    Row("bad JSON", "200 OK", b'{"prompt": "hel', "upstream_bad_response", 502, of_two=1),
    Row("another shape", "200 OK", {"answer": "hello"}, "upstream_bad_response", 502, of_two=1),
    Row("an error with 200", "200 OK", {"error": {"message": "x", "code": "out_of_memory"}}, "out_of_memory",
        503, retry_after="5"),
    Row("an error as the first event", "200 OK", b'data: {"error": {"message": "x", "code": "busy"}}\n\n',
        "upstream_rate_limited", 429, retry_after="5", type="rate_limit_error",
        headers={"content-type": "text/event-stream"}),
    Row("the edge with 200", "200 OK", edge_text(modal.STOPPED), "upstream_stopped", 503, hopeless=True),
    Row("FastChat: validation", FASTCHAT, {"object": "error", "message": "x", "code": 40001},
        "upstream_bad_request", 400, type="invalid_request_error", of_two=1),
    Row("FastChat: key", FASTCHAT, {"object": "error", "message": "x", "code": 40101}, "upstream_auth", 502,
        AT, hopeless=True),
    Row("FastChat: model", FASTCHAT, {"object": "error", "message": "x", "code": 40301},
        "upstream_not_found", 502, f"check {AT}.model", hopeless=True),
    Row("FastChat: context", FASTCHAT, {"object": "error", "message": "x", "code": 40303},
        "context_length_exceeded", 400, type="invalid_request_error", of_two=1),
    Row("FastChat: busy", FASTCHAT, {"object": "error", "message": "x", "code": 42901},
        "upstream_rate_limited", 429, retry_after="5", type="rate_limit_error"),
    Row("FastChat: memory", FASTCHAT, {"object": "error", "message": "x", "code": 50002}, "out_of_memory",
        503, retry_after="5"),
    Row("FastChat: no worker", FASTCHAT, {"object": "error", "message": "x", "code": 50005},
        "upstream_unavailable", 503, retry_after="5"),
    Row("FastChat: timeout", FASTCHAT, {"object": "error", "message": "x", "code": 50006},
        "upstream_timeout", 504),
)  # fmt: skip


async def reply(visit: Visit, row: Row) -> None:
    body = row.body if isinstance(row.body, bytes) else json.dumps(row.body).encode()
    kind = "text/plain" if isinstance(row.body, bytes) and row.status[0] != "2" else "application/json"
    headers = {"content-type": kind, "content-length": str(len(body)), **row.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    await visit.send(f"HTTP/1.1 {row.status}\r\n{head}\r\n".encode() + body)


def headers(line: Line) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in line.said[0]["headers"]}


def config(port: int = 1, server: Mapping[str, Any] | None = None, **model: Any) -> dict[str, Any]:
    made = settings(port, upstream=model.pop("upstream", {}))
    if model:
        made["models"]["m"] = {"template": "plain", **model}
    return {**made, "server": dict(server or {})}


def request(**fields: Any) -> Line:
    return Line(body=json.dumps({**ASK, **fields}).encode())


async def ask(app: App, bound: float = BOUND, **fields: Any) -> Line:
    line = request(**fields)
    await soon(app(line.scope, line.receive, line.send), bound)
    return line


async def asked(port: int, *, stream: bool, bound: float = BOUND, **upstream: Any) -> Line:
    """What a client is sent by a gateway whose upstream is at this port."""
    app = build_app(settings_from(config(port, upstream=upstream), {}))
    return await ask(app, bound, stream=stream)


def check(row: Row, line: Line) -> None:
    error, told = line.error, headers(line)
    assert (line.status, error["code"], error["type"]) == (row.seen, row.code, row.type)
    assert row.says in error["message"]
    assert "secret'" not in error["message"]
    assert told.get("retry-after") == row.retry_after
    assert told.get("x-should-retry") == ("false" if row.hopeless else None)
    assert told["x-request-id"].startswith("req_")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_row_of_the_table(row: Row, stream: bool) -> None:
    async with container(lambda visit: reply(visit, row)) as behind:
        check(row, await asked(behind.port, stream=stream, **row.upstream))
        assert len(behind.visits) == row.calls
        assert {visit.method for visit in behind.visits} == {"POST"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_how_often_a_row_is_tried_where_the_model_has_two_upstreams(row: Row) -> None:
    async with container(lambda visit: reply(visit, row)) as behind:
        entry = {"url": f"http://127.0.0.1:{behind.port}/", **row.upstream}
        app = build_app(settings_from(config(upstreams=[entry, entry]), {}))
        assert (await ask(app)).status == row.seen
        assert len(behind.visits) == row.of_two


# --- where there is no answer ---


async def test_a_connection_that_is_refused() -> None:
    line = await asked(1, stream=False)
    assert (line.status, line.error["code"]) == (503, "upstream_unavailable")
    assert headers(line)["retry-after"] == "5"
    assert f"{AT}.url" in line.error["message"]


async def test_a_host_that_is_not_known() -> None:
    line = await asked(1, stream=False, url="http://gateway.invalid/")
    assert (line.status, line.error["code"]) == (503, "upstream_unavailable")
    assert headers(line)["retry-after"] == "5"
    assert f"{AT}.url" in line.error["message"]


async def test_a_server_that_does_not_speak_tls() -> None:
    def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        line = await asked(port, stream=False, url=f"https://127.0.0.1:{port}/")
    assert (line.status, line.error["code"]) == (502, "upstream_tls")
    assert headers(line)["x-should-retry"] == "false"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_crash_before_the_first_byte(stream: bool) -> None:
    async def crash(visit: Visit) -> None:
        visit.cut()

    async with container(crash) as behind:
        line = await asked(behind.port, stream=stream)
        assert (line.status, line.error["code"]) == (502, "upstream_disconnected")
        assert len(behind.visits) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("choices", [1, 3])
async def test_an_upstream_that_stops_without_an_end(choices: int, stream: bool) -> None:
    desk = Desk(deployed(Scripted("a", [[Text("hel")]])))
    line = await desk.ask(n=choices, stream=stream)
    if stream:
        assert json.loads(line.body.split(b"data: ")[-1])["error"]["code"] == "upstream_cut"
    else:
        assert (line.status, line.error["code"]) == (502, "upstream_cut")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_silence_until_the_deadline(stream: bool) -> None:
    async with container(lambda visit: visit.until_closed()) as behind:
        line = await asked(behind.port, stream=stream, first_event_timeout=0.1)
        assert (line.status, line.error["code"]) == (504, "upstream_timeout")
        assert f"{AT}.first_event_timeout" in line.error["message"]
        assert len(behind.visits) == 1


async def test_an_edge_without_a_container_until_the_deadline() -> None:
    async with container(lambda visit: visit.answer(b"", status="503 No", kind="text/plain")) as behind:
        with faster(20) as bound:
            line = await asked(
                behind.port, bound=bound, stream=False, first_event_timeout=3, connect_timeout=3600
            )
        assert (line.status, line.error["code"]) == (503, "upstream_cold")
        assert 1 <= int(headers(line)["retry-after"]) <= 60
        assert 2 <= len(behind.visits) <= 4


# --- results that Modal promises ---


class Promises:
    """Answers a call with 303, and the result's address so many times with another; then the result."""

    def __init__(self, hops: int) -> None:
        self.hops = hops
        self.seen: list[str] = []  # methods
        self.generated = 0
        self.go = asyncio.Event()  # the last hop waits for it
        self.go.set()

    async def __call__(self, visit: Visit) -> None:
        self.seen.append(visit.method)
        if visit.method == "POST":
            self.generated += 1
            self.streams = visit.json.get("stream")
        else:
            assert modal.CALL_PARAMETER in visit.path
        if len(self.seen) <= self.hops:
            location = f"/result?{modal.CALL_PARAMETER}=fc-1"
            await visit.send(
                f"HTTP/1.1 303 See Other\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode()
            )
            return
        await self.go.wait()
        await (visit.say("hello", " world") if self.streams else visit.answer({"prompt": "hello world"}))


async def test_a_chain_of_five_promises_ends_in_one_answer() -> None:
    promises = Promises(5)
    async with container(promises) as behind:
        line = await asked(behind.port, stream=False)
    assert line.status == 200
    assert json.loads(line.body)["choices"][0]["message"]["content"] == "hello world"
    assert (promises.seen, promises.generated) == (["POST", *["GET"] * 5], 1)


@pytest.mark.parametrize("grace", [0, 8])
async def test_a_chain_of_five_promises_ends_in_one_stream_however_late(grace: float) -> None:
    promises = Promises(5)
    promises.go.clear()
    async with container(promises) as behind:
        app = build_app(settings_from(config(behind.port, server={"first_byte_grace": grace}), {}))
        line = request(stream=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(app(line.scope, line.receive, line.send))
            if grace == 0:
                await soon(line.until(b'"role":"assistant"'))
            promises.go.set()
    assert text(line.body.decode()) == "hello world"
    assert (promises.seen, promises.generated) == (["POST", *["GET"] * 5], 1)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_promises_without_end_end_at_the_deadline(stream: bool) -> None:
    promises = Promises(10**6)
    async with container(promises) as behind:
        with faster(10) as bound:
            line = await asked(behind.port, bound=bound, stream=stream, first_event_timeout=4)
    assert (line.status, line.error["code"]) == (504, "upstream_timeout")
    assert promises.generated == 1
    assert 10 <= len(promises.seen) <= 20  # the first at once, then one a second
