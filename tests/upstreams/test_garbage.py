"""Whatever an upstream sends, only a ``GatewayError`` or an answer comes out."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.events import Finish
from tests.upstreams import fake
from tests.upstreams.calling import Outcome, ask, chat, chatting, outcome, prompting
from tests.upstreams.conformance import KITS
from tests.upstreams.fake import soon

TYPES = ["text/event-stream", "application/x-ndjson", "application/json", "text/plain", "text/html", ""]

# Parts of answers in any order: nearer to what breaks a parser than noise is.
PARTS = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"\n",
        b"\n\n",
        b"\r\n",
        b": ping\n\n",
        b"[DONE]",
        b'{"prompt":"a"}',
        b'{"choices":[]}',
        b'{"choices":[{"delta":{"content":"a"}}]}',
        b'{"choices":[{"message":{"content":"a"}}]}',
        b'{"error":"x"}',
        b'{"finish_reason":"stop"}',
        b'{"choices":[{"finish_reason":"stop"}]}',
        b"modal-http: ",
        b"\xff\xfe",
        b"\x00",
        b"null",
        b"[]",
        b'"',
        b"{",
        b"}",
        b"1e999",
        b'{"prompt":"\\ud800"}',
        b"\xef\xbb\xbf",
        b"\xe2\x80\xa8",
        b"NaN",
    ]
)
BODIES = st.lists(PARTS, max_size=12).map(b"".join) | st.binary(max_size=60)
STATUSES = st.sampled_from(
    [200, 200, 200, 201, 204, 299, 302, 303, 400, 401, 404, 408, 422, 429, 500, 503, 599]
)


async def both(answer: bytes) -> list[Outcome]:
    """What the two HTTP kinds make of these bytes; nothing may reach the loop as an unhandled exception."""
    loose: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loose.append(context))
    async with fake.serving(fake.once(answer)) as server:
        async with prompting(server.url) as upstream:
            first = await soon(outcome(upstream, ask()))
        async with chatting(server.url) as upstream:
            second = await soon(outcome(upstream, chat()))
    assert loose == []
    return [first, second]


def check(got: Outcome) -> None:
    if got.error is None:
        assert isinstance(got.finish, Finish)
    else:
        assert 400 <= got.failure.status <= 504
        assert got.failure.message.isprintable()


@given(STATUSES, st.sampled_from(TYPES), BODIES)
def test_any_body(status: int, kind: str, body: bytes) -> None:
    for got in asyncio.run(both(fake.response(body, kind, f"{status} x"))):
        check(got)


@given(st.binary(max_size=80))
def test_any_bytes_in_place_of_http(answer: bytes) -> None:
    for got in asyncio.run(both(answer)):
        check(got)


HEAD_PARTS = st.sampled_from(
    [
        b"content-length: 5\r\n",
        b"content-length: -1\r\n",
        b"content-length: 99999999999999999999\r\n",
        b"location: //x\r\n",
        b"transfer-encoding: chunked\r\n",
        b"transfer-encoding: gzip\r\n",
        b"content-encoding: gzip\r\n",
        b"\xff: \xff\r\n",
        b"connection: close\r\n",
        b"connection: upgrade\r\nupgrade: x\r\n",
        b"content-type: application/json\r\n",
        b"content-type: \xff\xff\r\n",
        b"retry-after: x\r\n",
        b" folded\r\n",
        b"no colon\r\n",
        b"x: " + b"y" * 9000 + b"\r\n",
        b"set-cookie: a=b\r\n",
        b"HTTP/1.1 200 OK\r\n",
    ]
)


@given(
    st.sampled_from(
        [
            b"HTTP/1.1 200 OK",
            b"HTTP/1.0 200 OK",
            b"HTTP/1.1 100 Continue",
            b"HTTP/1.1 101 x",
            b"HTTP/1.1 303 x",
        ]
    ),
    st.lists(HEAD_PARTS, max_size=5),
    st.sampled_from(
        [b"", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"ffffffffffffffffff\r\n", b"hello"]
    ),
)
def test_any_head(first: bytes, lines: list[bytes], body: bytes) -> None:
    for got in asyncio.run(both(first + b"\r\n" + b"".join(lines) + b"\r\n" + body)):
        check(got)


@pytest.mark.parametrize("kind", ["prompt", "openai"])
@given(data=st.data())
def test_a_good_stream_with_one_byte_changed(kind: str, data: st.DataObject) -> None:
    answer = bytearray(KITS[kind].first + KITS[kind].rest)
    answer[data.draw(st.integers(0, len(answer) - 1))] = data.draw(st.integers(0, 255))
    for got in asyncio.run(both(bytes(answer))):
        check(got)
