"""Images over real sockets: to containers as data, to chat servers as they came, from allowed hosts."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.core.errors import BadRequest, RateLimited
from gateway.core.wire import ChatRequest
from gateway.serve.images import AT_ONCE, MAX_BYTES, REQUESTS, Images
from gateway.settings import ConfigError, settings_from
from gateway.upstreams.download import HOPS, File, NotFetched
from tests.serve.house import House, Visit, container, house, settings, soon

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
DATA = f"data:image/png;base64,{b64encode(PNG).decode()}"
TOKEN = "<|vision_start|><|image_pad|><|vision_end|>"
SEEING = {"template": "qwen2-vl", "images": True}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def asked(*urls: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*map(image, urls), {"type": "text", "text": "what?"}]}]


async def post(at: House, path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(
            f"http://127.0.0.1:{at.port}{path}", json={"model": "m", **fields}, timeout=10
        )


async def greet(visit: Visit) -> None:
    if visit.json.get("stream"):
        await visit.say("hel", "lo")
    else:
        await visit.answer({"prompt": "hello"})


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, parameter and message."""
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["message"]


# --- as data ---


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/chat/completions"])
async def test_a_container_gets_the_prompt_and_the_images(path: str, stream: bool) -> None:
    async with house(greet, **SEEING) as at:
        answer = await post(at, path, messages=asked(DATA, DATA), stream=stream)
        assert answer.status_code == 200 and "hel" in answer.text
        [sent] = [visit.json for visit in at.container.visits]
        assert sent["images"] == [DATA, DATA]
        assert f"user\n{TOKEN}{TOKEN}what?<|im_end|>" in sent["prompt"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_responses_api_sends_the_same(stream: bool) -> None:
    parts = [{"type": "input_image", "image_url": DATA}, {"type": "input_text", "text": "what?"}]
    async with house(greet, **SEEING) as at:
        answer = await post(at, "/v1/responses", input=[{"role": "user", "content": parts}], stream=stream)
        assert answer.status_code == 200 and "hel" in answer.text
        assert at.container.visits[0].json["images"] == [DATA]


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropics_api_sends_the_same(stream: bool) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": DATA.partition(",")[2]}
    blocks = [{"type": "image", "source": source}, {"type": "text", "text": "what?"}]
    asked = {"messages": [{"role": "user", "content": blocks}], "max_tokens": 5}
    async with house(greet, **SEEING) as at:
        answer = await post(at, "/v1/messages", stream=stream, **asked)
        assert answer.status_code == 200 and "hel" in answer.text
        sent = at.container.visits[0].json
        assert sent["images"] == [DATA]
        assert f"user\n{TOKEN}what?<|im_end|>" in sent["prompt"]


async def test_the_field_has_the_name_that_the_configuration_gives_it() -> None:
    named = {"request_fields": {"images": "multi_modal_data.image"}}
    async with house(greet, upstream=named, **SEEING) as at:
        await post(at, messages=asked(DATA))
        assert at.container.visits[0].json["multi_modal_data"] == {"image": [DATA]}


async def test_images_that_a_container_ignored_are_named() -> None:
    async def blind(visit: Visit) -> None:
        await visit.answer({"prompt": "hello", "ignored": ["images"]})

    async with house(blind, **SEEING) as at:
        assert (await post(at, messages=asked(DATA))).headers["x-gateway-ignored"] == "images"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_server_gets_them_as_they_came(stream: bool) -> None:
    async def chats(visit: Visit) -> None:
        if visit.json.get("stream"):
            await visit.start_stream()
            await visit.event(
                {"choices": [{"index": 0, "delta": {"content": "hel"}, "finish_reason": "stop"}]}
            )
            await visit.event("[DONE]")
            await visit.end_stream()
        else:
            said = {"role": "assistant", "content": "hel"}
            await visit.answer({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]})

    messages = asked("https://example.org/a.png", DATA)
    messages[0]["content"][0]["image_url"]["detail"] = "low"
    async with house(chats, upstream={"kind": "openai"}, images=True) as at:
        answer = await post(at, messages=messages, stream=stream)
        assert answer.status_code == 200 and "hel" in answer.text
        assert at.container.visits[0].json["messages"] == messages


async def test_what_is_refused_reaches_no_container() -> None:
    async with house(greet, template="qwen2-vl") as at:
        status, param, message = refusal(await post(at, messages=asked(DATA)))
        assert (status, param) == (400, "messages[0].content[0].type")
        assert "models.m.images is not set" in message
        assert not at.container.visits
    async with house(greet, template="plain", images=True) as at:
        assert "models.m.image_token" in refusal(await post(at, messages=asked(DATA)))[2]
        assert not at.container.visits


# --- from an address ---


Served = tuple[str, bytes, str]  # status, body, header lines
SERVED: dict[str, Served] = {
    "/a.png": ("200 OK", PNG, "content-type: image/png"),
    "/typed": ("200 OK", PNG, "content-type: Image/JPEG; charset=x"),
    "/moved": ("302 Found", b"", "location: /a.png"),
    "/loop": ("302 Found", b"", "location: /loop"),
    "/away": ("302 Found", b"", "location: https://elsewhere.example/a.png"),
    "/nowhere": ("302 Found", b"", "location: http://["),
    "/page": ("200 OK", b"<html>", "content-type: text/html"),
    "/liar": ("200 OK", b"<html>", "content-type: image/png"),
    "/shy": ("200 OK", PNG, "content-type: text/plain"),
    "/zipped": ("200 OK", PNG, "content-type: image/png\r\ncontent-encoding: gzip"),
    "/gone": ("404 Not Found", b"no", "content-type: text/plain"),
    "/bad": ("200 OK", b"", "content-length: x"),
}


async def pictures(visit: Visit) -> None:
    status, body, headers = SERVED[visit.path]
    head = f"HTTP/1.1 {status}\r\n{headers}\r\n"
    if "content-length" not in headers:
        head += f"content-length: {len(body)}\r\n"
    await visit.send(head.encode() + b"\r\n" + body)


@asynccontextmanager
async def gallery(
    script: Callable[[Visit], Awaitable[None]] = pictures, **model: Any
) -> AsyncIterator[tuple[House, str, list[Visit]]]:
    """A gateway that may fetch from a server of images: (house, its address, its visits)."""
    async with container(script) as images:
        host = f"127.0.0.1:{images.port}"
        server = {"server": {"image_hosts": [host]}}
        async with house(greet, server, **{**SEEING, **model}) as at:
            yield at, f"http://{host}", images.visits


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "asks"), [("/a.png", 1), ("/moved", 2), ("/typed", 1)])
async def test_an_allowed_host_is_asked_once_and_data_is_sent(path: str, asks: int, stream: bool) -> None:
    async with gallery() as (at, host, visits):
        answer = await post(at, messages=asked(host + path, DATA, host + path), stream=stream)
        assert answer.status_code == 200
        assert at.container.visits[0].json["images"] == [DATA] * 3
        assert len(visits) == asks
        assert {visit.method for visit in visits} == {"GET"}
        assert not {"authorization", "cookie", "x-request-id"} & visits[0].headers.keys()


async def test_it_is_fetched_once_however_often_the_call_is_tried_again() -> None:
    async def fails_once(visit: Visit) -> None:
        if len(at.container.visits) == 1:
            await visit.answer({"error": {"message": "x", "code": "busy"}}, status="408 Request Timeout")
        else:
            await greet(visit)

    async with gallery() as (at, host, visits):
        at.container.script = fails_once
        assert (await post(at, messages=asked(host + "/a.png"))).status_code == 200
        assert [visit.json["images"] for visit in at.container.visits] == [[DATA]] * 2
        assert len(visits) == 1


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/page", "is no PNG, JPEG, WebP or GIF image"),
        ("/liar", "is no PNG, JPEG, WebP or GIF image"),
        ("/shy", "is no PNG, JPEG, WebP or GIF image"),
        ("/gone", "status 404"),
        ("/zipped", "compresses it"),
        ("/loop", f"more than {HOPS} redirects"),
        ("/nowhere", "cannot be fetched"),
        ("/bad", "as HTTP wants it"),
        ("/away", "images are not fetched from elsewhere.example"),
    ],
)
async def test_what_cannot_be_an_image_is_a_400_that_says_why(path: str, why: str) -> None:
    async with gallery() as (at, host, _):
        status, param, message = refusal(await post(at, messages=asked(DATA, host + path)))
        assert (status, param) == (400, "messages[0].content[1].image_url")
        assert why in message
        assert host not in message
        assert not at.container.visits


async def test_the_responses_api_names_its_own_field() -> None:
    async with gallery() as (at, host, _):
        parts = [{"type": "input_image", "image_url": f"{host}/gone"}]
        calls = [{"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"} for id in "ab"]
        result = {"type": "function_call_output", "call_id": "b", "output": parts}
        for said, param in (
            ([{"role": "user", "content": parts}], "input[0].content[0].image_url"),
            ([{"role": "user", "content": "see"}, *calls, result], "input[3].output[0].image_url"),
        ):
            answer = await post(at, "/v1/responses", input=said, instructions="be brief")
            assert refusal(answer)[:2] == (400, param)


async def test_no_host_is_asked_that_was_not_named() -> None:
    async with container(pictures) as images, house(greet, **SEEING) as at:
        host = f"127.0.0.1:{images.port}"
        status, _, message = refusal(await post(at, messages=asked(f"http://{host}/a.png")))
        assert status == 400
        assert "server.image_hosts" in message and "127.0.0.1" in message
        assert not images.visits and not at.container.visits


async def test_one_that_is_refused_keeps_the_others_from_being_fetched() -> None:
    async with gallery() as (at, host, visits):
        answer = await post(at, messages=asked(f"{host}/a.png", "https://elsewhere.example/b.png"))
        assert refusal(answer)[:2] == (400, "messages[0].content[1].image_url")
        assert not visits


async def test_nothing_is_fetched_for_a_chat_server() -> None:
    async def chats(visit: Visit) -> None:
        said = {"role": "assistant", "content": "hel"}
        await visit.answer({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]})

    async with gallery(upstream={"kind": "openai"}) as (at, host, visits):
        at.container.script = chats
        assert (await post(at, messages=asked(f"{host}/a.png"))).status_code == 200
        assert at.container.visits[0].json["messages"] == asked(f"{host}/a.png")
        assert not visits


async def test_a_body_that_does_not_end_is_cut_at_the_limit() -> None:
    hung_up = asyncio.Event()

    async def endless(visit: Visit) -> None:
        await visit.start_stream("image/png")
        await visit.chunk(PNG)
        try:
            while True:
                await visit.chunk(bytes(1 << 20))
        except ConnectionError:
            hung_up.set()
            raise

    async with gallery(endless) as (at, host, _):
        answer = await post(at, messages=asked(f"{host}/a.png"))
        assert f"more than {MAX_BYTES} bytes" in refusal(answer)[2]
        await soon(hung_up.wait())


async def test_a_closed_port_is_told() -> None:
    async with container(pictures) as images:
        host = f"127.0.0.1:{images.port}"
    async with house(greet, {"server": {"image_hosts": [host]}}, **SEEING) as at:
        assert "no connection to its host" in refusal(await post(at, messages=asked(f"http://{host}/a")))[2]


# --- bounds, without sockets ---


def chat(*urls: str) -> ChatRequest:
    return ChatRequest.model_validate({"messages": asked(*urls)})


async def refused(images: Images, *urls: str) -> str:
    with pytest.raises(BadRequest) as caught:
        await soon(images.inlined(chat(*urls)))
    return caught.value.message


@pytest.mark.parametrize(
    ("hosts", "url", "allowed"),
    [
        (["example.org"], "https://example.org/a", True),
        (["example.org"], "https://EXAMPLE.org:443/a?b#c", True),
        (["example.org"], "HTTPS://example.org./a", True),
        (["example.org"], "https://a.example.org/a", False),
        (["example.org"], "https://example.org:8443/a", False),
        (["example.org:8443"], "https://example.org:8443/a", True),
        (["example.org"], "http://example.org/a", False),
        (["example.org"], "https://example.org.evil.example/a", False),
        (["example.org"], "https://evilexample.org/a", False),
        (["example.org"], "https://example.org@evil.example/a", False),
        (["example.org"], "https://user@example.org/a", False),
        (["example.org"], "https://evil.example\\@example.org/a", False),
        (["example.org"], "https://example.org /a", False),
        (["example.org"], "https://example.org/a\r\nx: y", False),
        (["example.org"], "https://exämple.org/a", False),
        (["example.org"], "https://example.org:x/a", False),
        (["example.org"], "https:///a", False),
        (["*.example.org"], "https://a.example.org/a", True),
        (["*.example.org"], "https://b.a.example.org/a", True),
        (["*.example.org"], "https://example.org/a", False),
        (["*.example.org"], "https://aexample.org/a", False),
        (["localhost"], "http://localhost/a", True),
        (["[::1]:80"], "http://[::1]:81/a", False),
        (["[::1]:81"], "http://[::1]:81/a", True),
        (["10.0.0.1"], "http://10.0.0.1/a", False),
        ([], "https://example.org/a", False),
    ],
)
async def test_who_is_asked(hosts: list[str], url: str, allowed: bool) -> None:
    fetched = []

    async def fetch(url: str, check: Callable[[str], None], take: Callable[[int], None]) -> File:
        check(url)
        fetched.append(url)
        return File("image/png", PNG)

    images = Images(
        settings_from(settings(1) | {"server": {"image_hosts": hosts}}, {}).server.image_hosts, fetch
    )
    if allowed:
        await images.inlined(chat(url))
    else:
        await refused(images, url)
    assert bool(fetched) == allowed


@pytest.mark.parametrize(
    "host", ["", "https://example.org", "example.org/a", "a b", "*", "*.", "a.*.b", "é.org", "a:b"]
)
def test_what_is_no_host_is_refused_at_start(host: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.image_hosts"):
        settings_from(settings(1) | {"server": {"image_hosts": [host]}}, {})


async def test_a_request_without_addresses_passes_as_it_is() -> None:
    request = chat(DATA)
    assert await Images(["example.org"]).inlined(request) is request


async def test_all_images_share_the_bytes_and_a_few_come_at_a_time() -> None:
    running, most_at_once, free = 0, 0, asyncio.Event()

    async def fetch(url: str, check: Callable[[str], None], take: Callable[[int], None]) -> File:
        nonlocal running, most_at_once
        running += 1
        most_at_once = max(most_at_once, running)
        if running == AT_ONCE:
            free.set()
        await free.wait()
        running -= 1
        data = PNG + bytes(MAX_BYTES // 8)
        take(len(data))
        return File("image/png", data)

    hosts = ["example.org"]
    few = [f"https://example.org/{number}" for number in range(7)]
    done = await soon(Images(hosts, fetch).inlined(chat(*few)))
    parts = done.messages[0]["content"][:7]
    assert len({part["image_url"]["url"] for part in parts}) == 1
    assert most_at_once == AT_ONCE
    assert "bytes together" in await refused(Images(hosts, fetch), *few, *(f"{url}x" for url in few[:2]))


async def test_images_that_come_side_by_side_never_hold_more_than_one_may() -> None:
    held, together = 0, asyncio.Barrier(AT_ONCE)

    async def fetch(url: str, check: Callable[[str], None], take: Callable[[int], None]) -> File:
        nonlocal held
        piece = MAX_BYTES // 8
        await together.wait()
        for _ in range(8):
            take(piece)
            held += piece
            await asyncio.sleep(0)
        raise AssertionError

    urls = [f"https://example.org/{number}" for number in range(AT_ONCE)]
    assert "bytes together" in await refused(Images(["example.org"], fetch), *urls)
    assert held <= MAX_BYTES


async def test_one_that_fails_ends_the_others() -> None:
    ended = asyncio.Event()

    async def fetch(url: str, check: Callable[[str], None], take: Callable[[int], None]) -> File:
        if url.endswith("bad"):
            raise NotFetched("its host is away")
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    images = Images(["example.org"], fetch)
    assert "its host is away" in await refused(images, "https://example.org/a", "https://example.org/bad")
    assert ended.is_set()


async def test_they_have_to_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch(url: str, check: Callable[[str], None], take: Callable[[int], None]) -> File:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr("gateway.serve.images.TIMEOUT", 0.01)
    assert "did not come within" in await refused(Images(["example.org"], fetch), "https://example.org/a")


async def test_while_many_fetch_theirs_others_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    running, full, go = 0, asyncio.Event(), asyncio.Event()

    async def fetch(url: str, check: Callable[[str], None], take: Callable[[int], None]) -> File:
        nonlocal running
        running += 1
        if running == REQUESTS:
            full.set()
        await go.wait()
        return File("image/png", PNG)

    images = Images(["example.org"], fetch)
    async with asyncio.TaskGroup() as group:
        for _ in range(REQUESTS):
            group.create_task(images.inlined(chat("https://example.org/a")))
        await soon(full.wait())
        monkeypatch.setattr("gateway.serve.images.TURN", 0.01)
        with pytest.raises(RateLimited, match="try again") as caught:
            await soon(images.inlined(chat("https://example.org/a")))
        assert caught.value.headers["retry-after"] == "1"
        go.set()
    await images.inlined(chat("https://example.org/a"))


async def test_the_body_of_a_contract_request_is_its_own_business() -> None:
    async with house(greet, **SEEING) as at:
        body = {"prompt": "<image>what?", "images": [DATA]}
        async with httpx.AsyncClient() as client:
            await client.post(
                f"{at.url}/prompt/m", content=json.dumps(body), headers={"content-type": "application/json"}
            )
        assert at.container.visits[0].json == body
