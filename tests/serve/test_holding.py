"""Clients are told in time that an answer is still to come, and a stream ends only where it has stalled."""

import asyncio
import gc
import json
from itertools import pairwise

import httpx
import openai
import pytest

from gateway.core.encode import PING
from gateway.http import rhythm
from gateway.http.exchange import Exchange, Message
from gateway.http.stream import WHITE_SPACE, LiveAnswer
from tests.serve.house import HELLO, Desk, Line, Scripted, Visit, deployed, faster, house, soon
from tests.serve.test_chat import ASK, text
from tests.serve.test_failures import error_event, raw

pytestmark = pytest.mark.slow

# --- the numbers ---


@pytest.mark.parametrize(
    ("told", "patience", "hold", "ping"),
    [
        ("", 55, 45, 10),  # a client that says nothing
        ("600", 60, 50, 10),  # the OpenAI SDK's default; something between may be less patient
        ("60", 60, 50, 10),
        ("30", 30, 20, 10),
        ("20", 20, 10, 10),
        ("12", 12, 6, 6),
        ("0.6", 0.6, 0.3, 0.3),
        ("soon", 55, 45, 10),
        ("nan", 55, 45, 10),
        ("inf", 60, 50, 10),
        ("-1", 55, 45, 10),
        ("0", 55, 45, 10),
    ],
)
def test_how_long_headers_are_held(told: str, patience: float, hold: float, ping: float) -> None:
    found = rhythm.patience({rhythm.READ_TIMEOUT: told.encode()} if told else {})
    assert found == patience
    whole, stream = rhythm.for_whole(found), rhythm.for_stream(found, 8.0)
    assert (whole.grace, whole.ping) == (hold, ping)
    assert (stream.grace, stream.ping, stream.pause) == (min(hold, 8.0), ping, 45.0)
    assert whole.grace < found
    assert stream.grace < found


# --- what is sent when, by the loop's clock ---


class Timed(Line):
    """Notes when each message was sent, in seconds since the request."""

    def __init__(self, **fields: object) -> None:
        super().__init__(body=json.dumps({**ASK, **fields}).encode())
        self.began = asyncio.get_running_loop().time()
        self.at: list[tuple[float, bytes]] = []  # headers are b""

    async def send(self, message: Message) -> None:
        self.at.append((asyncio.get_running_loop().time() - self.began, message.get("body", b"")))
        await super().send(message)

    def times(self, part: bytes) -> list[float]:
        return [at for at, body in self.at if part in body]


SLACK = 6.0  # seconds of a clock that runs a hundred times faster: 60 ms


async def silent(seconds: float, read_timeout: str = "", **fields: object) -> Timed:
    """The answer of a model that is silent for so long before its only word."""
    gc.collect()  # in between, what other tests left would hold up a clock that runs fast
    desk = Desk(deployed(Scripted("a", [lambda: asyncio.sleep(seconds), *HELLO])))
    with faster(100) as bound:
        line = Timed(**fields)
        if read_timeout:
            line.scope["headers"].append((rhythm.READ_TIMEOUT, read_timeout.encode()))
        await soon(desk.take(line), bound)
    return line


@pytest.mark.parametrize(("read_timeout", "hold", "ping"), [("", 45, 10), ("600", 50, 10), ("16", 8, 8)])
async def test_headers_of_a_whole_answer_are_held_and_then_space_is_sent(
    read_timeout: str, hold: float, ping: float
) -> None:
    line = await silent(hold + 3.5 * ping, read_timeout)
    head, _ = line.at[0]
    assert hold <= head <= hold + SLACK
    spaces = [at for at, body in line.at if body == b" "]
    assert len(spaces) == 4
    assert all(ping - 1 <= later - earlier <= ping + SLACK for earlier, later in pairwise(spaces))
    assert line.body.startswith(b"    {")
    assert json.loads(line.body)["choices"][0]["message"]["content"] == "hello"


async def test_a_whole_answer_that_comes_in_time_has_its_length_and_no_space() -> None:
    line = await silent(30)
    assert b"content-length" in dict(line.said[0]["headers"])
    assert line.body.startswith(b"{")


async def test_a_silent_stream_opens_is_commented_and_says_nothing_now_and_then() -> None:
    line = await silent(120, stream=True)
    [opened] = line.times(b'"role":"assistant"')
    assert 8 <= opened <= 8 + SLACK
    fillers = [opened, *sorted(line.times(PING) + line.times(b'"delta":{"content":""}'))]
    assert all(later - earlier <= 10 + SLACK for earlier, later in pairwise(fillers))
    chunks = [opened, *line.times(b'"delta":{"content":""}')]
    assert len(chunks) == 3
    assert all(44 <= later - earlier <= 45 + SLACK for earlier, later in pairwise(chunks))
    assert text(line.body.decode()) == "hello"


async def test_an_answer_that_is_settled_is_not_filled_however_slowly_it_is_taken() -> None:
    line = Line()
    exchange = Exchange(line.send, "req_1")
    async with LiveAnswer(exchange, dict, WHITE_SPACE, rhythm.Rhythm(0, 0, 0)) as live:
        assert not await live.settle()
        live.keep()  # the client is slow to take the answer, which says its length
        await exchange.answer(b"{}", {})
        for _ in range(10):
            await asyncio.sleep(0)
    assert line.body == b"{}"
    assert len(line.said) == 2


# --- over sockets ---


async def test_a_failure_after_the_headers_of_a_whole_answer_cuts_the_connection() -> None:
    async def fail(visit: Visit) -> None:
        await asyncio.sleep(0.4)
        visit.cut()

    async with house(fail) as at:
        body = json.dumps(ASK).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"x-stainless-read-timeout: 0.2\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )
        got = await soon(reader.read())
        writer.close()
        head, _, rest = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b" " in rest
        assert b"{" not in rest  # nothing that a client could take for an answer
        assert not rest.endswith(b"0\r\n\r\n")
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post(
                    at.url + "/chat/completions", json=ASK, headers={"x-stainless-read-timeout": "0.2"}
                )


async def test_the_official_client_survives_ten_times_its_time_limit_without_a_retry() -> None:
    limit = 6.0

    async def late(visit: Visit) -> None:
        await asyncio.sleep(10 * limit)
        await (visit.say("hello") if visit.json.get("stream") else visit.answer({"prompt": "hello"}))

    async def whole(client: openai.AsyncOpenAI) -> str | None:
        answer = await client.chat.completions.create(**ASK)  # type: ignore[call-overload]
        return str(answer.choices[0].message.content)

    async def streamed(client: openai.AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(**ASK, stream=True)  # type: ignore[call-overload]
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async with (
        house(late) as at,
        openai.AsyncOpenAI(base_url=at.url, api_key="unused", timeout=limit, max_retries=2) as client,
    ):
        with faster(20) as bound:
            assert await soon(asyncio.gather(whole(client), streamed(client)), bound) == ["hello", "hello"]
        assert len(at.container.visits) == 2


# --- streams that go on, and one that does not ---

LIMITS = {"first_event_timeout": 5.0, "idle_timeout": 4.0}  # seconds of a clock that runs faster


async def test_a_healthy_stream_is_never_cut_however_long_it_takes() -> None:
    pieces = [f"{number} " for number in range(25)]

    async def steady(visit: Visit) -> None:
        await visit.start_stream()
        for piece in pieces:
            await asyncio.sleep(1)
            await visit.event({"prompt": piece})
        await visit.event("[DONE]")
        await visit.end_stream()

    async with house(steady, upstream=LIMITS) as at:
        asked = {**ASK, "stop": "never"}, {**ASK, "stream": True}
        async with httpx.AsyncClient(base_url=at.url, timeout=None) as client:
            with faster(20) as bound:
                both = (client.post("/chat/completions", json=each) for each in asked)
                whole, streamed = await soon(asyncio.gather(*both), bound)
        assert text(streamed.text) == "".join(pieces)
        assert whole.json()["choices"][0]["message"]["content"] == "".join(pieces)


@pytest.mark.parametrize("sign", [b"", b": ping\n\n"], ids=["nothing", "comments"])
async def test_a_stream_that_stalls_ends_at_the_limit_with_an_error_event(sign: bytes) -> None:
    since = 0.0

    async def stall(visit: Visit) -> None:
        nonlocal since
        await visit.start_stream()
        await visit.event({"prompt": "hello"})
        since = asyncio.get_running_loop().time()
        while sign:
            await visit.chunk(sign)
            await asyncio.sleep(0.5)
        await visit.until_closed()

    async with house(stall, upstream=LIMITS) as at:
        with faster(20):
            error = error_event(await raw(at))
            took = asyncio.get_running_loop().time() - since
    assert error["code"] == "upstream_idle"
    assert "models.m.upstream.idle_timeout" in error["message"]
    assert LIMITS["idle_timeout"] <= took + 0.01
    assert took <= LIMITS["idle_timeout"] + 2.0
